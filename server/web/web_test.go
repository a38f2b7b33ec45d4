package web_test

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"barkd/server/web"
)

// names are the files of the folder that belong to the page.
func names(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, pattern := range []string{"*.html", "*.css", "*.js", "*.svg"} {
		found, err := filepath.Glob(pattern)
		require.NoError(t, err)
		out = append(out, found...)
	}
	require.NotEmpty(t, out)
	return out
}

func TestEveryFileIsEmbeddedWithItsTypeAndTag(t *testing.T) {
	tags := map[string]bool{}
	for _, name := range names(t) {
		want, err := os.ReadFile(name)
		require.NoError(t, err)
		got, ok := web.Find(name)
		require.True(t, ok, name)
		assert.Equal(t, want, got.Body, name)
		assert.NotEmpty(t, got.ContentType, name)
		assert.Regexp(t, `^"[0-9a-f]{32}"$`, got.ETag)
		assert.False(t, tags[got.ETag], "%s has the tag of another", name)
		tags[got.ETag] = true
	}
	for _, name := range []string{"", ".", "web.go", "../web/app.js", "none.js"} {
		_, ok := web.Find(name)
		assert.False(t, ok, name)
	}
}

// What the policy would refuse, or what would leave the server, must not be in the files at all.
func TestThePageIsWholeAndKeepsItsPolicy(t *testing.T) {
	links := regexp.MustCompile(`(?:src|href)="(/web/[^"]+)"|from "\./([^"]+)"`)
	inline := regexp.MustCompile(`(?i)<style|\sstyle=|\son[a-z]+="|<script(?:>|\s+type="module">)|innerHTML|insertAdjacentHTML|document\.write|\beval\(`)
	foreign := regexp.MustCompile(`(?:src|href|from|url\()\s*=?\s*["']?(?:https?:)?//`)
	for _, name := range names(t) {
		a, _ := web.Find(name)
		text := string(a.Body)
		assert.Empty(t, inline.FindAllString(text, -1), name)
		assert.Empty(t, foreign.FindAllString(text, -1), name)
		assert.LessOrEqual(t, strings.Count(text, "\n"), 400, name)
		for _, link := range links.FindAllStringSubmatch(text, -1) {
			_, ok := web.Find(path.Base(link[1] + link[2]))
			assert.True(t, ok, "%s names %s%s, which is not there", name, link[1], link[2])
		}
	}
	assert.NotContains(t, web.Policy, "unsafe")
}

func TestEveryElementThatTheModulesNameIsInThePage(t *testing.T) {
	index, _ := web.Find(web.Index)
	docs, _ := web.Find(web.Docs)
	for _, name := range names(t) {
		a, _ := web.Find(name)
		for _, id := range regexp.MustCompile(`byId\("([^"]+)"\)`).FindAllStringSubmatch(string(a.Body), -1) {
			page := index
			if name == "docs.js" {
				page = docs
			}
			assert.Contains(t, string(page.Body), `id="`+id[1]+`"`, name)
		}
	}
}
