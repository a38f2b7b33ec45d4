// Package web is the page that barkd serves to people: plain HTML, CSS and ES modules, embedded as they are. Nothing
// is built and nothing is fetched from elsewhere.
package web

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"path"
)

//go:embed *.html *.css *.js *.svg
var files embed.FS

// The names of the pages: the one that speaks, and that of the API.
const (
	Index = "index.html"
	Docs  = "docs.html"
)

// Policy is the Content-Security-Policy of the page: its own files, its own server, and sound it made itself.
const Policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// types are those of the files; a browser with X-Content-Type-Options runs no module of another.
var types = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// Asset is one file of the page.
type Asset struct {
	Body        []byte
	ContentType string
	ETag        string // strong: of the bytes
}

// Find returns a file of the page by its name. Hashing one takes less time than sending it.
func Find(name string) (Asset, bool) {
	body, err := files.ReadFile(name)
	if err != nil {
		return Asset{}, false
	}
	digest := sha256.Sum256(body)
	return Asset{Body: body, ContentType: types[path.Ext(name)], ETag: `"` + hex.EncodeToString(digest[:16]) + `"`}, true
}
