# Filled by the CPU backend: BARKRT_ISA_OBJECTS.
