package memwatch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzForeign feeds one text to every parser of the kernel's files: none may panic, and no number may be negative.
func FuzzForeign(f *testing.F) {
	trees, err := filepath.Glob("testdata/trees/*.txt")
	if err != nil || len(trees) == 0 {
		f.Fatal("no trees", err)
	}
	for _, name := range trees {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for part := range strings.SplitSeq(string(text), "\n-- ") {
			_, content, _ := strings.Cut(part, " --\n")
			f.Add(content)
		}
	}
	f.Add("MemTotal: 9007199254740991 kB\nMemFree: 9007199254740991 kB\nCached: 9007199254740991 kB\n")
	f.Add("some avg10=1e308 total=9223372036854775807\nfull avg10=-1 total=18446744073709551615\n")
	f.Add("18446744073709551615\n")
	f.Fuzz(func(t *testing.T, text string) {
		if total, available, err := parseMeminfo(text); err == nil && (total <= 0 || available < 0 || available > total) {
			t.Errorf("meminfo: %d of %d available", available, total)
		}
		for name, n := range parseCounters(text) {
			if n < 0 {
				t.Errorf("counter %q is %d", name, n)
			}
		}
		if n, ok := parseNumber(text); ok && n < 0 {
			t.Errorf("number %d", n)
		}
		if s, _ := parseStall(text); !(s.SomeAvg10 >= 0 && s.SomeAvg10 <= 100 && s.FullAvg10 >= 0 && s.FullAvg10 <= 100) ||
			s.SomeTotal < 0 || s.FullTotal < 0 {
			t.Errorf("stall %+v", s)
		}
		for _, h := range append(hierarchies(text), cgroupV1, cgroupV2) {
			name, _ := ownGroup(text, h)
			if below := h.below(name); below[0] != '/' || strings.Contains(below+"/", "/../") {
				t.Errorf("group %q of %+v lies at %q", name, h, below)
			}
		}
	})
}
