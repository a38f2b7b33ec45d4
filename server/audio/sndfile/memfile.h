// A file in memory for libsndfile, whose tail can be taken away while it is written.
#ifndef BARKD_MEMFILE_H
#define BARKD_MEMFILE_H

#include <sndfile.h>

// memfile holds the bytes [base, len) of a file; those before base were handed over and are gone.
typedef struct memfile {
  unsigned char* data;  // data[0] is byte base of the file
  sf_count_t base, len, capacity, pos;
} memfile;

// memfile_open opens a file as sf_open_virtual does. Writing over bytes that are gone has no effect
// and is no error: it is how an encoder completes the header of a file, and a stream has none.
SNDFILE* memfile_open(memfile* file, int mode, SF_INFO* info);

#endif
