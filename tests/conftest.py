"""What every test stands on: hypothesis settings that hold on a busy machine."""

from hypothesis import settings

# A deadline for one example measures the neighbours of this process more than the code under test.
settings.register_profile("tq", deadline=None, print_blob=True)
settings.load_profile("tq")
