package voices

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/cgo"
	"barkd/server/models/voicefile"
)

func arrays() cgo.VoiceArrays {
	return cgo.VoiceArrays{Semantic: []int32{1, 2}, Coarse: [][]int32{{1, 2, 3}, {4, 5, 6}}, Fine: [][]int32{{1, 2, 3}, {4, 5, 6}, {7, 8, 9}}}
}

func open(t *testing.T, dir string, limits Limits) *Store {
	t.Helper()
	s, err := Open(dir, limits)
	require.NoError(t, err)
	return s
}

var roomy = Limits{Voices: 100, Bytes: 1 << 20}

func TestAVoiceSurvivesARestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there", "yet")
	s := open(t, dir, roomy)
	all, err := s.List()
	require.NoError(t, err)
	assert.Empty(t, all)
	added, err := s.Add(Voice{Name: "Jörg – warm", Origin: Generated, Model: "suno/bark", Consent: "his own"}, arrays())
	require.NoError(t, err)
	again := open(t, dir, roomy)
	for _, key := range []string{added.ID, "Jörg – warm"} {
		found, err := again.Find(key)
		require.NoError(t, err)
		assert.Equal(t, added, found)
	}
	got, err := again.Arrays(added.ID)
	require.NoError(t, err)
	assert.Equal(t, arrays(), got)
	plain, err := voicefile.Read(filepath.Join(dir, fileName(added.ID)))
	require.NoError(t, err)
	assert.Equal(t, arrays(), plain, "other programs read the file, too")
}

func TestIDsNeverLeaveTheFolder(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, voicefile.Write(filepath.Join(dir, "secret.npz"), arrays()))
	s := open(t, filepath.Join(dir, "voices"), roomy)
	_, err := s.Add(Voice{Name: "a"}, arrays())
	require.NoError(t, err)
	for _, id := range []string{"", ".", "..", "../secret", "../voices/../secret", "/etc/passwd", "a/b", `..\secret`, "%2e%2e", "a\x00", ".lock", strings.Repeat("a", 65)} {
		_, err := s.Get(id)
		assert.ErrorIs(t, err, cgo.ErrNotFound, id)
		_, err = s.Arrays(id)
		assert.ErrorIs(t, err, cgo.ErrNotFound, id)
		assert.ErrorIs(t, s.Remove(id), cgo.ErrNotFound, id)
	}
	_, err = os.Stat(filepath.Join(dir, "secret.npz"))
	assert.NoError(t, err)
}

func TestBadNamesAndArraysAreRefused(t *testing.T) {
	s := open(t, t.TempDir(), roomy)
	for _, name := range []string{"", " a", "a ", "a\nb", "\x00", "\xff", "a\u202eb", strings.Repeat("é", 101)} {
		_, err := s.Add(Voice{Name: name}, arrays())
		assert.ErrorIs(t, err, cgo.ErrInvalidArgument, "%q", name)
	}
	for what, change := range map[string]func(*cgo.VoiceArrays){
		"no semantic codes": func(v *cgo.VoiceArrays) { v.Semantic = nil },
		"no coarse codes":   func(v *cgo.VoiceArrays) { v.Coarse = [][]int32{{}} },
		"no fine codes":     func(v *cgo.VoiceArrays) { v.Fine = nil },
		"codebook 1 has 1":  func(v *cgo.VoiceArrays) { v.Fine[1] = []int32{1} },
		"less than 0":       func(v *cgo.VoiceArrays) { v.Coarse[1][2] = -1 },
		"2 coarse codebooks but 1 fine": func(v *cgo.VoiceArrays) {
			v.Fine = v.Fine[:1]
		},
	} {
		v := arrays()
		change(&v)
		_, err := s.Add(Voice{Name: "a"}, v)
		assert.ErrorIs(t, err, cgo.ErrInvalidArgument, what)
		assert.ErrorContains(t, err, what)
	}
	long := arrays()
	long.Semantic = make([]int32, MaxBytes/8)
	_, err := s.Add(Voice{Name: "a"}, long)
	assert.ErrorIs(t, err, cgo.ErrInvalidArgument)
	all, err := s.List()
	require.NoError(t, err)
	assert.Empty(t, all)
}

func TestTheStoreIsBoundedInCountAndBytes(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Limits{Voices: 2, Bytes: 1 << 20})
	first, err := s.Add(Voice{Name: "a"}, arrays())
	require.NoError(t, err)
	_, err = s.Add(Voice{Name: "a"}, arrays())
	assert.ErrorIs(t, err, ErrExists)
	_, err = s.Add(Voice{Name: first.ID}, arrays())
	assert.ErrorIs(t, err, ErrExists, "an id is a name that is taken")
	_, err = s.Add(Voice{Name: "b"}, arrays())
	require.NoError(t, err)
	_, err = s.Add(Voice{Name: "c"}, arrays())
	assert.ErrorIs(t, err, ErrFull)
	require.NoError(t, s.Remove(first.ID))
	assert.ErrorIs(t, s.Remove(first.ID), cgo.ErrNotFound)
	_, err = open(t, dir, Limits{Voices: 9, Bytes: first.Bytes + 50}).Add(Voice{Name: "c"}, arrays())
	assert.ErrorIs(t, err, ErrFull)
	_, err = s.Add(Voice{Name: "c"}, arrays())
	assert.NoError(t, err)
}

func TestForeignFilesAreVoicesOrLeftOut(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, roomy)
	require.NoError(t, voicefile.Write(filepath.Join(dir, "my_own.npz"), arrays()))
	for name, content := range map[string]string{"notes.txt": "x", "broken.npz": "x", ".hidden.npz": "x", "two words.npz": "x"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	require.NoError(t, os.Mkdir(filepath.Join(dir, "folder.npz"), 0o700))
	huge, err := os.Create(filepath.Join(dir, "huge.npz"))
	require.NoError(t, err)
	require.NoError(t, errors.Join(huge.Truncate(MaxBytes+1), huge.Close()))
	all, err := s.List()
	require.NoError(t, err)
	require.Len(t, all, 1)
	assert.Equal(t, "my_own", all[0].Name)
	_, err = s.Arrays("broken")
	assert.ErrorIs(t, err, cgo.ErrInvalidArgument)
	require.NoError(t, os.Remove(filepath.Join(dir, "my_own.npz")))
	require.NoError(t, voicefile.Write(filepath.Join(dir, "my_own.npz"), cgo.VoiceArrays{Semantic: []int32{1}, Coarse: [][]int32{{1}}, Fine: [][]int32{{1}}}))
	fresh, err := s.Get("my_own")
	require.NoError(t, err)
	assert.NotEqual(t, all[0].Bytes, fresh.Bytes, "another file of that name is another voice")
}

func TestManyAtOnceNeverExceedTheLimitNorShareAName(t *testing.T) {
	dir := t.TempDir()
	var all sync.WaitGroup
	var mu sync.Mutex
	added := map[string]int{}
	for i := range 8 {
		s := open(t, dir, Limits{Voices: 5, Bytes: 1 << 20}) // as many programs
		all.Go(func() {
			for j := range 10 {
				name := fmt.Sprint((i + j) % 6)
				v, err := s.Add(Voice{Name: name}, arrays())
				if err != nil {
					assert.True(t, errors.Is(err, ErrExists) || errors.Is(err, ErrFull), err)
					continue
				}
				mu.Lock()
				added[name]++
				mu.Unlock()
				if j%3 == 0 {
					got, err := s.Arrays(v.ID)
					assert.NoError(t, err)
					assert.NoError(t, s.Remove(v.ID))
					assert.Equal(t, arrays(), got, "who holds a voice keeps it")
					mu.Lock()
					added[name]--
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	left, err := open(t, dir, roomy).List()
	require.NoError(t, err)
	assert.LessOrEqual(t, len(left), 5)
	names := map[string]int{}
	for _, v := range left {
		names[v.Name]++
		assert.Equal(t, 1, names[v.Name], v.Name)
		assert.Equal(t, 1, added[v.Name], v.Name)
	}
}

func TestAFileIsNoFolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	_, err := Open(path, roomy)
	assert.ErrorContains(t, err, "is a file")
}

func TestVoicesLieInTheUsersDataFolder(t *testing.T) {
	env := map[string]string{"HOME": "/h"}
	get := func(name string) string { return env[name] }
	dir, err := DefaultDir(get)
	require.NoError(t, err)
	assert.Equal(t, "/h/.local/share/barkd/voices", dir)
	env["XDG_DATA_HOME"] = "/d"
	dir, err = DefaultDir(get)
	require.NoError(t, err)
	assert.Equal(t, "/d/barkd/voices", dir)
	_, err = DefaultDir(func(string) string { return "" })
	assert.ErrorContains(t, err, "VOICES_DIR")
}
