# SPDX-License-Identifier: GPL-2.0-or-later
"""TLS credentials for both sides."""

import secrets
from pathlib import Path

from dev.rig.basics import run
from dev.rig.scene import Scene
from dev.rig.vm import Vm

NAME = 'wsm-destination'


def sign(folder: Path, name: str, subject: str, extensions: str) -> None:
    """A certificate of the CA in @folder."""
    conf = folder / f'{name}.conf'
    conf.write_text(extensions)
    run('openssl', 'req', '-new', '-newkey', 'rsa:2048', '-nodes',
        '-keyout', str(folder / f'{name}-key.pem'), '-subj', subject,
        '-out', str(folder / f'{name}.csr'))
    run('openssl', 'x509', '-req', '-days', '2', '-extfile', str(conf),
        '-in', str(folder / f'{name}.csr'),
        '-CA', str(folder / 'ca-cert.pem'),
        '-CAkey', str(folder / 'ca-key.pem'), '-CAcreateserial',
        '-out', str(folder / f'{name}-cert.pem'))


def make_certificates(folder: Path) -> Path:
    """A CA, and a certificate for each side, in the names QEMU wants."""
    folder.mkdir()
    run('openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes',
        '-days', '2', '-subj', '/CN=wsm test CA',
        '-keyout', str(folder / 'ca-key.pem'),
        '-out', str(folder / 'ca-cert.pem'),
        '-addext', 'keyUsage=critical,keyCertSign')
    sign(folder, 'server', f'/CN={NAME}',
         f'subjectAltName=DNS:{NAME}\nextendedKeyUsage=serverAuth\n'
         'keyUsage=digitalSignature,keyEncipherment\n')
    sign(folder, 'client', '/CN=wsm-source',
         'extendedKeyUsage=clientAuth\n'
         'keyUsage=digitalSignature,keyEncipherment\n')
    return folder


def use_x509(vm: Vm, folder: Path, endpoint: str) -> None:
    vm.qmp.cmd('object-add', {
        'qom-type': 'tls-creds-x509', 'id': 'tls0', 'dir': str(folder),
        'endpoint': endpoint, 'verify-peer': True})
    vm.set_params(tls_creds='tls0', tls_hostname=NAME)


def use_x509_on_both(scene: Scene, source: Vm, destination: Vm) -> None:
    folder = make_certificates(scene.folder / 'tls')
    use_x509(source, folder, 'client')
    use_x509(destination, folder, 'server')


def make_keys(folder: Path) -> Path:
    folder.mkdir()
    (folder / 'keys.psk').write_text(f'qemu:{secrets.token_hex(32)}\n')
    return folder


def use_psk(vm: Vm, folder: Path, endpoint: str) -> None:
    vm.qmp.cmd('object-add', {
        'qom-type': 'tls-creds-psk', 'id': 'tls0', 'dir': str(folder),
        'endpoint': endpoint})
    vm.set_params(tls_creds='tls0')
