"""Interactive functions: many small Python calls from a notebook, run by workers at a site.

    @dcde.app(site="anl", cores=1)
    def energy(structure):
        ...

    futures = [energy(s) for s in structures]        # or dcde.map(energy, structures)

The kernel holds the client of Parsl's HighThroughputExecutor; its interchange and workers are at the site, and the
person's runner carries the bytes between them. Parsl loads at the first call.
"""
