"""What sharing a backbone saves: the paper's Tables 5 and 6 for every network and any number of tasks.

counting.py    operations and memory of one module, without computing anything
costs.py       the same for a network of K tasks, in the paper's units and in ours
timing.py      K separate networks against one backbone with K heads, in one run
published.py   the paper's own values, and where they can't hold
rows.py        all of it as rows
report.py      rows as tables, Markdown and a plot; needs no torch, as docs/results/ is made by it

"""
