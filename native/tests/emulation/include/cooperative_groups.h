// cooperative_groups.h: the grid of a cooperative launch, for the emulation.
#pragma once

#include "emulation/thread.h"

namespace cooperative_groups {

struct grid_group {
  void sync(const emulation::Site& site = {}) const { emulation::grid_barrier(site); }
};
inline grid_group this_grid() { return {}; }

}  // namespace cooperative_groups
