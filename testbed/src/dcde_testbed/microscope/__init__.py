"""A microscope known inside out: synthetic movies of a known protein, with the truth beside them.

The movies have what the programs of a first look must cope with: motion between frames, a gain pattern, radiation
damage, defocus and astigmatism, noise of the detector and of the ice. They are easier than real ones (no carbon,
no broken particles, one conformation, no preferred orientation); the signal level is written into `truth.json`.
"""
