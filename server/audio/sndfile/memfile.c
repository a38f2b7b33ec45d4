#include "memfile.h"

#include <stdlib.h>
#include <string.h>

static sf_count_t file_len(void* user) { return ((memfile*)user)->len; }

static sf_count_t file_tell(void* user) { return ((memfile*)user)->pos; }

static sf_count_t file_seek(sf_count_t offset, int whence, void* user) {
  memfile* f = user;
  sf_count_t from = whence == SEEK_SET ? 0 : whence == SEEK_CUR ? f->pos : f->len;
  if (from + offset < 0 || from + offset > f->len) return -1;
  f->pos = from + offset;
  return f->pos;
}

static sf_count_t file_read(void* to, sf_count_t count, void* user) {
  memfile* f = user;
  if (f->pos < f->base || count < 0) return 0;
  if (count > f->len - f->pos) count = f->len - f->pos;
  memcpy(to, f->data + (f->pos - f->base), (size_t)count);
  f->pos += count;
  return count;
}

// reserve makes room for the bytes up to end of the file.
static int reserve(memfile* f, sf_count_t end) {
  sf_count_t need = end - f->base;
  if (need <= f->capacity) return 1;
  sf_count_t capacity = f->capacity < 4096 ? 4096 : f->capacity;
  while (capacity < need) capacity *= 2;
  unsigned char* data = realloc(f->data, (size_t)capacity);
  if (data == NULL) return 0;
  f->data = data;
  f->capacity = capacity;
  return 1;
}

static sf_count_t file_write(const void* from, sf_count_t count, void* user) {
  memfile* f = user;
  const unsigned char* bytes = from;
  sf_count_t end = f->pos + count;
  sf_count_t gone = f->pos < f->base ? f->base - f->pos : 0;
  if (gone > count) gone = count;
  if (gone < count) {
    if (!reserve(f, end)) return 0;
    memcpy(f->data + (f->pos + gone - f->base), bytes + gone, (size_t)(count - gone));
  }
  f->pos = end;
  if (f->len < end) f->len = end;
  return count;
}

SNDFILE* memfile_open(memfile* file, int mode, SF_INFO* info) {
  SF_VIRTUAL_IO io = {file_len, file_seek, file_read, file_write, file_tell};
  return sf_open_virtual(&io, mode, info, file);
}
