"""Rows in a file that lose nothing committed.

From the disk up: `format` says how rows stand in a file, `recovery` tells what a crash left from
what somebody else wrote, `folder` opens and locks, `journal` keeps the receipts of QoS 2, `store`
commits, and `json` is what users make. `reading` reads back.
"""
