/*
 * Which nodes of a ring keep which page: what all who compute it must find
 *
 * WSM_RING_VECTOR(nodes, separated by spaces; text whose SHA-256 is the hash;
 * its key; the three nodes that keep it, the best first)
 *
 * Included by test-wsm-ring.c, and read by test_wsm_ring.py.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
WSM_RING_VECTOR("alpha", "",
                "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", "0")
WSM_RING_VECTOR("alpha", "page",
                "NmAxWprz3yVdjxmrB35Hl4IrQUiKDioEvGr3EhPCMnQ=", "0")
WSM_RING_VECTOR("alpha", "3",
                "TgdAhWK+24tgzgXB3s/jrRa3IjCWfeAfZAt+Rym0n84=", "0")
WSM_RING_VECTOR("alpha", "4",
                "SyJ3d9TdH8Ycb4hPSGQdArTRIdP9Moywi1Ux/Kzav4o=", "0")
WSM_RING_VECTOR("beta alpha", "",
                "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", "0 1")
WSM_RING_VECTOR("beta alpha", "page",
                "NmAxWprz3yVdjxmrB35Hl4IrQUiKDioEvGr3EhPCMnQ=", "0 1")
WSM_RING_VECTOR("beta alpha", "3",
                "TgdAhWK+24tgzgXB3s/jrRa3IjCWfeAfZAt+Rym0n84=", "0 1")
WSM_RING_VECTOR("beta alpha", "4",
                "SyJ3d9TdH8Ycb4hPSGQdArTRIdP9Moywi1Ux/Kzav4o=", "1 0")
WSM_RING_VECTOR("alpha beta gamma", "",
                "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", "1 2 0")
WSM_RING_VECTOR("alpha beta gamma", "page",
                "NmAxWprz3yVdjxmrB35Hl4IrQUiKDioEvGr3EhPCMnQ=", "1 2 0")
WSM_RING_VECTOR("alpha beta gamma", "3",
                "TgdAhWK+24tgzgXB3s/jrRa3IjCWfeAfZAt+Rym0n84=", "2 1 0")
WSM_RING_VECTOR("alpha beta gamma", "4",
                "SyJ3d9TdH8Ycb4hPSGQdArTRIdP9Moywi1Ux/Kzav4o=", "0 2 1")
WSM_RING_VECTOR("gamma alpha beta", "",
                "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", "2 0 1")
WSM_RING_VECTOR("gamma alpha beta", "page",
                "NmAxWprz3yVdjxmrB35Hl4IrQUiKDioEvGr3EhPCMnQ=", "2 0 1")
WSM_RING_VECTOR("gamma alpha beta", "3",
                "TgdAhWK+24tgzgXB3s/jrRa3IjCWfeAfZAt+Rym0n84=", "0 2 1")
WSM_RING_VECTOR("gamma alpha beta", "4",
                "SyJ3d9TdH8Ycb4hPSGQdArTRIdP9Moywi1Ux/Kzav4o=", "1 0 2")
WSM_RING_VECTOR("a b c d e f g", "",
                "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", "2 5 3")
WSM_RING_VECTOR("a b c d e f g", "page",
                "NmAxWprz3yVdjxmrB35Hl4IrQUiKDioEvGr3EhPCMnQ=", "5 3 6")
WSM_RING_VECTOR("a b c d e f g", "3",
                "TgdAhWK+24tgzgXB3s/jrRa3IjCWfeAfZAt+Rym0n84=", "5 6 2")
WSM_RING_VECTOR("a b c d e f g", "4",
                "SyJ3d9TdH8Ycb4hPSGQdArTRIdP9Moywi1Ux/Kzav4o=", "3 2 0")
WSM_RING_VECTOR("10.1.0.1:11211 [fd00::5]:11211 unix:/run/ring ringe", "",
                "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", "3 1 2")
WSM_RING_VECTOR("10.1.0.1:11211 [fd00::5]:11211 unix:/run/ring ringe", "page",
                "NmAxWprz3yVdjxmrB35Hl4IrQUiKDioEvGr3EhPCMnQ=", "1 3 2")
WSM_RING_VECTOR("10.1.0.1:11211 [fd00::5]:11211 unix:/run/ring ringe", "3",
                "TgdAhWK+24tgzgXB3s/jrRa3IjCWfeAfZAt+Rym0n84=", "0 3 2")
WSM_RING_VECTOR("10.1.0.1:11211 [fd00::5]:11211 unix:/run/ring ringe", "4",
                "SyJ3d9TdH8Ycb4hPSGQdArTRIdP9Moywi1Ux/Kzav4o=", "3 2 1")
