"""When. A controller takes a key, gathers facts through ports, asks `core` what follows, acts
through ports and reports. It decides nothing that `core` could decide and knows no vendor.
"""
