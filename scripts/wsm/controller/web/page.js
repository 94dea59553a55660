// SPDX-License-Identifier: GPL-2.0-or-later
// The live map.  All that came from hosts and VMs is put in as text.
'use strict';

const MANY = 200;               // hosts; with more there are cells first
const SVG = document.getElementById('arrows').namespaceURI;
const SIGNS = {kept: '', short: '–', broken: '!', unknown: ''};
const WORDS = {kept: 'gets what it was promised', short: 'has less than it was promised just now',
    broken: 'does not get what it was promised', unknown: 'nothing is known of a promise to it'};
const TITLES = {cpu: 'CPU', memory: 'memory', rx: 'received', tx: 'sent', disk: 'disk', net: 'network'};
let me = {role: 'viewer', token: '', who: ''};
let map = null;                 // the newest state
let shown = null;               // what the details are of: [kind, name]
let picked = null;              // the host that was chosen among cells
let asked = 0, answered = 0;    // maps

const $ = (id) => document.getElementById(id);

function make(name, attributes = {}, ...inside) {
    const made = document.createElement(name);
    return fill(made, attributes, inside);
}

function draw(name, attributes = {}, ...inside) {
    return fill(document.createElementNS(SVG, name), attributes, inside);
}

function fill(made, attributes, inside) {
    for (const [key, value] of Object.entries(attributes)) {
        if (key === 'onclick') {
            made.addEventListener('click', value);
        } else {
            made.setAttribute(key, value);
        }
    }
    made.append(...inside);
    return made;
}

function human(bytes) {
    for (const unit of ['B', 'KiB', 'MiB', 'GiB']) {
        if (Math.abs(bytes) < 1024) {
            return `${unit === 'B' ? bytes.toFixed(0) : bytes.toFixed(1)} ${unit}`;
        }
        bytes /= 1024;
    }
    return `${bytes.toFixed(1)} TiB`;
}

async function ask(path, body) {
    const options = body === undefined ? {} : {method: 'POST', body: JSON.stringify(body),
        headers: {'Content-Type': 'application/json', 'X-Wsm-Token': me.token}};
    const reply = await fetch(path, options);
    const found = await reply.json();
    if (!reply.ok) {
        throw new Error(found.text || `status ${reply.status}`);
    }
    return found;
}

const level = (part) => part < 65 ? 'cool' : part < 80 ? 'warm' : 'hot';
const may = () => me.role !== 'viewer';

// Hosts

function fullest(host) {
    return Math.max(host.cpu[0], host.memory, host.rx, host.tx, host.disk);
}

function words(host) {
    const parts = ['memory', 'rx', 'tx', 'disk'].map((name) => `${TITLES[name]} ${host[name]} %`);
    return `${host.name}, ${host.known ? host.state : 'not heard of'}${host.hot ? ', too hot' : ''}: ` +
        `CPU ${host.cpu[0]} % now, ${host.cpu[1]} % at its peak, ${host.cpu[2]} % forecast, ` +
        `${parts.join(', ')}, ${host.vms.length} VMs`;
}

function bars(host) {
    const made = draw('svg', {width: 250, height: 86, 'aria-hidden': 'true'});
    const rows = [['cpu', ...host.cpu], ...['memory', 'rx', 'tx', 'disk'].map((name) => [name, host[name]])];
    rows.forEach(([name, now, peak, soon], row) => {
        const y = row * 17, x = (part) => 58 + 1.5 * Math.min(100, Math.max(0, part));
        made.append(draw('text', {x: 0, y: y + 11}, TITLES[name]),
            draw('rect', {x: 58, y, width: 150, height: 13, class: 'track'}),
            draw('rect', {x: 58, y, width: x(now) - 58, height: 13, class: level(now)}),
            draw('text', {x: 214, y: y + 11}, `${now} %`));
        if (peak !== undefined) {
            made.append(draw('rect', {x: x(peak) - 1, y, width: 2, height: 13, class: 'peak'}),
                draw('circle', {cx: x(soon), cy: y + 6.5, r: 4, class: 'soon'}));
        }
    });
    return made;
}

function square(vm) {
    const side = Math.round(Math.min(34, Math.max(10, 8 + 5 * Math.log2(1 + vm.ram / 1024))));
    const text = `${vm.name}: ${human(vm.ram * 1048576)} of memory, ${WORDS[vm.sla]}` +
        (vm.moving ? ', it moves' : '');
    const made = draw('svg', {width: side, height: side, class: `vm ${vm.sla}`, 'aria-hidden': 'true'},
        draw('title', {}, text),
        draw('rect', {x: 1, y: 1, width: side - 2, height: side - 2, class: 'square'}),
        draw('text', {x: side / 2, y: side / 2 + 4}, vm.moving ? '→' : SIGNS[vm.sla]));
    return make('button', {type: 'button', 'aria-label': text, 'data-vm': vm.name,
        onclick: () => detail('vm', vm.name)}, made);
}

function box(host) {
    const kind = `host${host.known ? '' : ' unknown'}${host.hot ? ' hot' : ''}`;
    return make('section', {class: kind, 'data-host': host.name, 'aria-label': words(host)},
        make('button', {type: 'button', onclick: () => detail('host', host.name)},
            `${host.hot ? '▲ ' : ''}${host.name} (${host.known ? host.state : 'not heard of'})`),
        bars(host), make('div', {class: 'vms'}, ...host.vms.map(square)));
}

// One can be reached by Tab, the others by arrow keys
function cells(hosts) {
    const across = Math.max(10, Math.floor((document.body.clientWidth - 20) / 18));
    const made = draw('svg', {width: across * 18, height: Math.ceil(hosts.length / across) * 18,
        role: 'group', 'aria-label': `${hosts.length} hosts, the fullest is darkest; arrow keys go from one to the next`});
    hosts.forEach((host, number) => {
        const cell = draw('g', {role: 'button', tabindex: number ? -1 : 0, 'aria-label': words(host),
            'data-host': host.name, onclick: () => pick(host.name)},
            draw('title', {}, words(host)),
            draw('rect', {x: number % across * 18, y: Math.floor(number / across) * 18, width: 17, height: 17,
                class: `cell ${host.known ? level(fullest(host)) : 'gone'}`}));
        if (host.hot) {
            cell.append(draw('text', {x: number % across * 18 + 5, y: Math.floor(number / across) * 18 + 13}, '▲'));
        }
        made.append(cell);
    });
    made.addEventListener('keydown', (event) => {
        const all = [...made.querySelectorAll('g')], at = all.indexOf(document.activeElement);
        const by = {ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across}[event.key];
        if (at >= 0 && by && all[at + by]) {
            all[at].setAttribute('tabindex', -1);
            all[at + by].setAttribute('tabindex', 0);
            all[at + by].focus();
            event.preventDefault();
        } else if (at >= 0 && (event.key === 'Enter' || event.key === ' ')) {
            pick(all[at].getAttribute('data-host'));
            event.preventDefault();
        }
    });
    return made;
}

function pick(name) {
    picked = name;
    detail('host', name);
    show();
}

// Moves

function rest(move) {
    return `${move.vm}: ${move.phase}, ${human(move.sent)} of ${human(move.bytes)}, ` +
        `${human(move.rate)}/s, ` + (move.rest === null ? 'time left unknown' : `${move.rest} s left`);
}

function arrows(moves) {
    const over = $('arrows'), all = $('map').getBoundingClientRect();
    over.setAttribute('width', all.width);
    over.setAttribute('height', all.height);
    over.replaceChildren(draw('defs', {}, draw('marker', {id: 'head', viewBox: '0 0 8 8', refX: 7, refY: 4,
        markerWidth: 5, markerHeight: 5, orient: 'auto'}, draw('path', {d: 'M0 0 8 4 0 8z', class: 'head'}))));
    moves.forEach((move, number) => {
        const ends = [move.from, move.to].map((name) => document.querySelector(
            `#boxes [data-host="${CSS.escape(name)}"]`));
        if (!ends[0] || !ends[1]) {
            return;
        }
        const [a, b] = ends.map((end) => end.getBoundingClientRect());
        const right = b.left >= a.left, y = (end) => end.top - all.top + Math.min(30 + 16 * number, end.height - 4);
        const from = [(right ? a.right : a.left) - all.left, y(a)];
        const to = [(right === (b.left > a.right) ? b.left : b.right) - all.left, y(b)];
        const part = (move.percent || 0) / 100, at = from.map((value, axis) => value + part * (to[axis] - value));
        over.append(draw('path', {class: 'way', d: `M${from} L${to}`, 'marker-end': 'url(#head)'}),
            draw('circle', {cx: at[0], cy: at[1], r: 7, 'data-move': move.vm, 'data-percent': move.percent || 0}),
            draw('text', {x: Math.max(0, a.left - all.left), y: a.top - all.top - 5 - 13 * (number % 2)}, rest(move)));
    });
    $('moves').replaceChildren(...(moves.length ? moves.map((move) => make('li', {},
        `${move.from} → ${move.to}: ${rest(move)}. ${move.why}`)) : [make('li', {}, 'nothing moves')]));
}

// Charts and details

function chart(title, found, name) {
    const values = found.series[name], most = Math.max(found.most[name] || 0, ...values.map((each) => each || 0)) || 1;
    const points = [[]];
    values.forEach((value, number) => {
        if (value === null) {
            points.push([]);
        } else {
            points.at(-1).push(`${(298 * (number + 1) / values.length).toFixed(1)},${(79 - 76 * value / most).toFixed(1)}`);
        }
    });
    const unit = name === 'cpu' ? `${most.toFixed(1)} cores` : name === 'disk' || name === 'memory'
        ? `${(100 * most).toFixed(0)} %` : `${human(most)}/s`;
    const known = values.filter((each) => each !== null), last = known.at(-1) || 0;
    const text = `${TITLES[name]}, ${title}: the top is ${unit}`;
    return make('figure', {}, make('figcaption', {}, text), draw('svg', {class: 'chart', width: 300, height: 80,
        role: 'img', 'aria-label': `${text}; now ${(100 * last / most).toFixed(0)} % of that, at most ` +
        `${(100 * Math.max(0, ...known) / most).toFixed(0)} %, ${known.length} points`},
        draw('rect', {x: 0, y: 0, width: 300, height: 80, class: 'frame'}),
        ...points.filter((each) => each.length).map((each) => draw('polyline', {points: each.join(' ')}))));
}

async function detail(kind, name) {
    shown = [kind, name];
    const query = `${kind}=${encodeURIComponent(name)}`, panel = $('detail');
    const parts = [make('h2', {tabindex: -1}, `${kind === 'vm' ? 'VM' : 'Host'} ${name}`), orders(kind, name)];
    try {
        const told = await ask(`/v1/explain?${query}`);
        parts.push(...told.lines.map((line) => make('p', {}, line)),
            ...told.decisions.map((each) => make('p', {}, `plan ${each.plan}: ${each.text}`)));
        const charts = make('div', {id: 'charts'});
        for (const [span, title] of [[600, '10 minutes'], [86400, '24 hours']]) {
            const found = await ask(`/v1/history?${query}&span=${span}`);
            charts.append(...Object.keys(found.series).map((each) => chart(title, found, each)));
        }
        parts.push(charts);
    } catch (error) {
        parts.push(make('p', {class: 'alarm'}, error.message));
    }
    if (shown[0] === kind && shown[1] === name) {
        panel.replaceChildren(...parts);
        panel.hidden = false;
        parts[0].focus();
    }
}

function orders(kind, name) {
    const made = make('div', {class: 'bar'});
    const host = kind === 'host' && map.hosts.find((each) => each.name === name);
    if (may() && host) {
        const on = !host.drains;
        made.append(make('button', {type: 'button', id: 'drain', onclick: () => approve(
            on ? `Empty host ${name}?` : `Let host ${name} keep its VMs?`,
            on ? [`${host.vms.length} VMs are to go elsewhere: ${host.vms.map((each) => each.name).join(', ') || 'none'}`,
                map.mode === 'auto' ? 'The next round begins with it.' : `Mode is ${map.mode}: the plan has it, and waits for you.`]
                : ['What moves goes on.'], on ? 'Drain' : 'Stop draining',
            () => ask('/v1/drain', {host: name, on}))}, on ? 'Drain…' : 'Stop draining…'));
    }
    if (may() && kind === 'vm' && map.moves.some((each) => each.vm === name)) {
        made.append(make('button', {type: 'button', onclick: () => approve(`Cancel the move of ${name}?`,
            ['It stays where it is, if it has not been handed over yet.'], 'Cancel the move',
            () => ask('/v1/cancel', {move: name}))}, 'Cancel its move…'));
    }
    made.append(make('button', {type: 'button', onclick: () => { shown = null; $('detail').hidden = true; }}, 'Close'));
    return made;
}

// Orders: each is shown first

function approve(title, lines, yes, act) {
    if ($('dialog').open) {
        return;                 // nobody is to say yes to what he has not read
    }
    const dialog = $('dialog'), said = make('p', {class: 'alarm', role: 'alert', hidden: ''});
    const close = make('button', {type: 'button', onclick: () => dialog.close()}, 'Close');
    const go = yes ? [make('button', {type: 'button', id: 'yes', onclick: async (event) => {
        event.target.disabled = true;
        try {
            await act();
            dialog.close();
            await look();
        } catch (error) {
            said.textContent = error.message;
            said.hidden = false;
        }
    }}, yes)] : [];
    dialog.replaceChildren(make('h2', {}, title), ...lines.map((line) => make('p', {}, line)), said,
        make('div', {class: 'bar'}, ...go, close));
    dialog.showModal();
}

async function plan() {
    try {
        const found = await ask('/v1/plan');
        const lines = [...found.steps.map((each) => each.why),
            ...found.asked.map((each) => `only if you say so (${each.ask}): ${each.why}`),
            ...found.later.map((each) => `then, if it is still right: ${each.why}`),
            ...found.nothing.map((each) => `nothing is done: ${each.lines.join('\n')}`)];
        const some = found.steps.length + found.asked.length;
        approve(`Plan ${found.plan}, mode ${found.mode}`, lines.length ? lines : [found.text],
            some && may() ? `Apply plan ${found.plan}` : '', () => ask('/v1/apply', {plan: found.plan}));
    } catch (error) {
        approve('There is no plan', [error.message], '', null);
    }
}

function pause() {
    const on = !map.paused;
    approve(on ? 'Begin nothing any more?' : 'Go on?', [on ? 'What moves goes on.' : `Mode is ${map.mode}.`],
        on ? 'Pause' : 'Go on', () => ask('/v1/pause', {on}));
}

// All of it

function unpack(found) {
    const row = (table, number) => Object.fromEntries(Object.entries(table).map(([key, values]) => [key, values[number]]));
    found.hosts = found.hosts.name.map((_, number) => ({...row(found.hosts, number), vms: []}));
    const moving = new Set(found.moves.map((each) => each.vm));
    found.vms.name.forEach((name, number) => {
        const vm = row(found.vms, number);
        found.hosts[vm.host].vms.push({...vm, moving: moving.has(name)});
    });
    return found;
}

function show() {
    const focus = document.activeElement, keep = ['data-vm', 'data-host'].map((key) =>
        focus && focus.closest(`#boxes [${key}]`) && [key, focus.closest(`[${key}]`).getAttribute(key)]).find(Boolean);
    const many = map.hosts.length > MANY;
    const boxes = many ? map.hosts.filter((host) => host.name === picked) : map.hosts;
    $('title').textContent = `${map.cluster}: mode ${map.mode}${map.paused ? ', paused' : ''}`;
    $('when').textContent = `${new Date(map.now * 1000).toLocaleString()}, ${map.name}, ${me.who} (${me.role})`;
    $('alarms').replaceChildren(...[...map.alarms, ...(map.problem ? [map.problem] : [])].map((text) =>
        make('p', {class: 'alarm'}, text)));
    $('boxes').replaceChildren(...(many ? [cells(map.hosts)] : []), ...boxes.map(box));
    $('said').replaceChildren(...map.decisions.map(([at, number, mode, text]) => make('tr', {},
        make('td', {}, new Date(at * 1000).toLocaleString()), make('td', {}, String(number)),
        make('td', {}, mode), make('td', {class: 'text'}, text))));
    $('pause').hidden = !may();
    $('pause').textContent = map.paused ? 'Go on…' : 'Pause…';
    arrows(map.moves);
    if (keep) {
        const again = document.querySelector(`#boxes [${keep[0]}="${CSS.escape(keep[1])}"]`);
        const target = again && (again.matches('button, g') ? again : again.querySelector('button'));
        if (target) {
            target.focus({preventScroll: true});
        }
    }
    document.body.dataset.round = map.round;
}

async function look() {
    const number = ++asked, found = unpack(await ask('/v1/map'));
    if (number < answered) {
        return;                 // an older answer that comes later
    }
    answered = number;
    map = found;
    show();
    if ($('tables').open) {
        const page = new DOMParser().parseFromString(await (await fetch('/')).text(), 'text/html');
        const rows = page.getElementById('rows');
        if (rows) {             // not when it has no store
            $('rows').replaceWith(rows);
        }
    }
}

function alarm(text) {
    $('alarms').replaceChildren(make('p', {class: 'alarm'}, text));
}

async function begin() {
    me = await ask('/v1/me');
    $('tables').open = false;
    $('live').hidden = false;
    $('plan').addEventListener('click', plan);
    $('pause').addEventListener('click', pause);
    $('tables').addEventListener('toggle', look);
    window.addEventListener('resize', () => map && show());
    const source = new EventSource('/v1/stream');
    source.onmessage = () => look().catch((error) => alarm(error.message));
    source.onerror = () => alarm('the controller does not answer: what is shown is old');
    source.addEventListener('moves', (event) => {
        if (map) {
            map.moves = JSON.parse(event.data);
            arrows(map.moves);
        }
    });
    await look();
}

begin();
