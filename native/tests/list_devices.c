/* list_devices.c: a line per device of this machine, as the library sees them. */
#include <stdio.h>

#include "barkrt.h"

int main(void) {
  for (int32_t i = 0; i < barkrt_device_count(); ++i) {
    barkrt_device device = {.struct_size = sizeof device};
    barkrt_error error;
    if (barkrt_device_describe(i, &device, &error)) {
      fprintf(stderr, "device %d: %s\n", (int)i, error.text);
      return 1;
    }
    printf("%d %s %s: %s\n", (int)i, device.id, device.name, device.detail);
  }
  return 0;
}
