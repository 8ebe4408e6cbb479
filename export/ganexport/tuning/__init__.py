"""Tuning: which backend, variant, threads and streams are the fastest on this machine, measured and kept in the bundle.

`configurations` says what there is to try, `eligibility` which variants may be picked at all, `proof` holds every
configuration against the golden samples, `turns` takes the times, `picking` decides, and `tune` does it all.
"""
