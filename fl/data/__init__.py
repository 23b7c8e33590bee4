"""The data side: named data sets, their partition over clients, and what of it is stored where.

    catalog.load -> Dataset -> prepare.prepare -> a store folder (devices) and a centre folder (server)

The server reads ``fl.data.centre`` and never ``fl.data.store``: importing this package imports neither.
"""
