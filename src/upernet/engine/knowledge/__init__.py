"""Visual knowledge: what the answers about many images tell of the visual world (Xiao et al. 2018, section 4.2)."""
