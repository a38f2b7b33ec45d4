/* The teacher: flite's statistical voices slt and rms.
 *
 *     teacher VOICE < lines > records         what the voice would say: phones and vocoder parameters, no audio
 *     teacher VOICE wave < lines > records    its own audio instead of the parameters
 *
 * One record a line of text, little-endian:
 *     int32 magic, line, tokens, phones, frames, channels, rate, samples
 *     tokens × { int32 bytes, the token's text }             as flite cut the line
 *     phones × { char name[8], float end (s), int32 token }  token is -1 for a pause
 *     frames × channels float                                every 5 ms: F0 (Hz, 0 unvoiced), mel-cepstrum 0..24
 *     samples int16
 *
 * Without "wave" the vocoder is replaced (the definition below hides the library's), which makes it twice as fast.
 */
#include <flite/cst_cg.h>
#include <flite/flite.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { kMagic = 0x45434f56, kMaxLine = 8192 };

cst_voice *register_cmu_us_slt(const char *dir);
cst_voice *register_cmu_us_rms(const char *dir);

static cst_track *parameters; /* of the last utterance */

#ifndef TEACHER_WAVE
cst_wave *mlsa_resynthesis(const cst_track *params, const cst_track *strengths, cst_cg_db *db,
                           cst_audio_streaming_info *asi, int mlsa_speech_param) {
  (void)strengths, (void)db, (void)asi, (void)mlsa_speech_param;
  if (parameters) delete_track(parameters);
  parameters = cst_track_copy(params);
  cst_wave *wave = new_wave();
  cst_wave_resize(wave, 1, 1);
  wave->sample_rate = 16000;
  return wave;
}
#endif

static void put(const void *data, size_t size, size_t count) {
  if (fwrite(data, size, count, stdout) != count) {
    perror("teacher");
    exit(1);
  }
}

static void put_int(int value) {
  int32_t v = value;
  put(&v, sizeof v, 1);
}

/* The index that number_tokens gave to the token a phone belongs to. */
static int token_of(const cst_item *phone) {
  const cst_item *at = item_as(phone, "SylStructure");
  if (!at || !(at = item_parent(at)) || !(at = item_parent(at))) return -1;
  at = item_as(at, "Token");
  return at && (at = item_parent(at)) ? item_feat_int(at, "index") : -1;
}

static int number_tokens(cst_utterance *u) {
  int n = 0;
  for (cst_item *t = relation_head(utt_relation(u, "Token")); t; t = item_next(t)) item_set_int(t, "index", n++);
  return n;
}

/* The phones with the ends of their last HMM states. Counts only, unless write is set. */
static int phones(cst_utterance *u, int write) {
  int n = 0;
  float end = 0;
  const cst_item *last = NULL;
  const cst_item *state = relation_head(utt_relation(u, "HMMstate"));
  for (;; state = item_next(state)) {
    const cst_item *phone = state ? item_parent(item_as(state, "segstate")) : NULL;
    if (last && (!phone || !item_equal(phone, last))) {
      n++;
      if (write) {
        char name[8] = {0};
        strncpy(name, item_feat_string(last, "name"), sizeof name - 1);
        put(name, 1, sizeof name);
        put(&end, sizeof end, 1);
        put_int(token_of(last));
      }
    }
    if (!state) return n;
    last = phone;
    end = item_feat_float(state, "end");
  }
}

static void put_record(cst_utterance *u, int line, int with_wave) {
  const cst_wave *w = utt_wave(u);
  const cst_track *t = with_wave ? NULL : parameters;
  const int header[8] = {kMagic, line, number_tokens(u), phones(u, 0), t ? t->num_frames : 0, t ? t->num_channels : 0,
                         w->sample_rate, with_wave ? w->num_samples : 0};
  for (int i = 0; i < 8; i++) put_int(header[i]);
  for (const cst_item *k = relation_head(utt_relation(u, "Token")); k; k = item_next(k)) {
    const char *name = item_feat_string(k, "name");
    put_int((int)strlen(name));
    put(name, 1, strlen(name));
  }
  phones(u, 1);
  for (int i = 0; t && i < t->num_frames; i++) put(t->frames[i], sizeof(float), (size_t)t->num_channels);
  if (with_wave) put(w->samples, sizeof(short), (size_t)w->num_samples);
}

int main(int argc, char **argv) {
  const int with_wave = argc == 3 && strcmp(argv[2], "wave") == 0;
  if (argc < 2 || argc > 3 || (argc == 3 && !with_wave)) {
    fprintf(stderr, "usage: teacher slt|rms [wave]\n");
    return 2;
  }
  flite_init();
  cst_voice *voice = strcmp(argv[1], "rms") == 0 ? register_cmu_us_rms(NULL) : register_cmu_us_slt(NULL);
  static char text[kMaxLine];
  for (int line = 0; fgets(text, sizeof text, stdin); line++) {
    text[strcspn(text, "\n")] = 0;
    cst_utterance *u = flite_synth_text(text, voice);
    if (!u) continue;
    put_record(u, line, with_wave);
    delete_utterance(u);
  }
  return 0;
}
