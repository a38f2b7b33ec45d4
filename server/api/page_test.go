package api_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"barkd/server/web"
)

func TestPageAndItsFilesAreServedUnderAStrictPolicy(t *testing.T) {
	s := newSite(t)
	for path, contentType := range map[string]string{
		"/": "text/html; charset=utf-8", "/web/app.js": "text/javascript; charset=utf-8",
		"/web/app.css": "text/css; charset=utf-8", "/web/icon.svg": "image/svg+xml",
	} {
		r := s.do(t, "GET", path, "")
		assert.Equal(t, 200, r.status, path)
		assert.NotEmpty(t, r.body, path)
		for name, want := range map[string]string{"Content-Type": contentType, "Content-Security-Policy": web.Policy,
			"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache"} {
			assert.Equal(t, want, r.header.Get(name), "%s %s", path, name)
		}
		head := s.do(t, "HEAD", path, "")
		assert.Equal(t, 200, head.status, path)
		assert.Empty(t, head.body, path)
		assert.Equal(t, r.header.Get("ETag"), head.header.Get("ETag"), path)
	}
	for _, path := range []string{"/web/", "/web/web.go", "/web/../openapi.yaml", "/web/%2e%2e/page.go", "/index.html"} {
		assert.Equal(t, 404, s.do(t, "GET", path, "").status, path)
	}
	assert.Equal(t, 405, s.do(t, "POST", "/", "").status)
}

func TestABrowserThatHasAFileIsTold304(t *testing.T) {
	s := newSite(t)
	tag := s.do(t, "GET", "/web/app.js", "").header.Get("ETag")
	for _, given := range []string{tag, "W/" + tag, `"other", ` + tag, "*"} {
		r := s.do(t, "GET", "/web/app.js", "", "If-None-Match", given)
		assert.Equal(t, 304, r.status, given)
		assert.Empty(t, r.body)
		assert.Equal(t, tag, r.header.Get("ETag"))
	}
	assert.Equal(t, 200, s.do(t, "GET", "/web/app.js", "", "If-None-Match", `"other"`).status)
}

func TestPageIsNotOnTheOperatorsAddress(t *testing.T) {
	s := openSite(t, settings{apart: true})
	assert.Equal(t, 200, s.do(t, "GET", "/", "").status)
	for _, path := range []string{"/", "/web/app.js"} {
		assert.Equal(t, 404, do(t, "GET", s.adminURL+path, "").status, path)
	}
}
