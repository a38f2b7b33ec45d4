package hub

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of a listing. The largest repositories have some hundred thousand files; no model file reaches 1 TiB.
const (
	maxFiles     = 500_000
	maxFileBytes = 1 << 40
	maxPathBytes = 1024
)

var (
	hex40      = regexp.MustCompile(`^[0-9a-f]{40}$`)
	hex64      = regexp.MustCompile(`^[0-9a-f]{64}$`)
	blobName   = regexp.MustCompile(`^[0-9A-Za-z_-][0-9A-Za-z._-]{0,127}$`)
	repoPart   = regexp.MustCompile(`^[0-9A-Za-z_](?:[0-9A-Za-z._-]*[0-9A-Za-z_])?$`)
	revisionOK = regexp.MustCompile(`^[0-9A-Za-z_][0-9A-Za-z._/+-]{0,199}$`)
)

// File is one file of a repository at one commit.
type File struct {
	Path    string // relative, with slashes; validated
	Size    int64  // bytes; -1 while unknown
	SHA256  string // of the content, for files in large file storage
	GitSHA1 string // of the git blob, for the others
	ETag    string // the only name there is where a hub gives neither
}

// Blob is the file's name in the cache: equal names have equal content.
func (f File) Blob() string { return firstOf(f.SHA256, f.GitSHA1, f.ETag) }

// Repo is a repository at one commit.
type Repo struct {
	ID       string // ORG/NAME
	Revision string // as asked for
	Commit   string
	Files    []File
}

// TotalBytes is the size of all files.
func (r Repo) TotalBytes() int64 {
	var n int64
	for _, f := range r.Files {
		n += max(0, f.Size)
	}
	return n
}

// CheckID says why id cannot be a repository's name, by the hub's own rules.
func CheckID(id string) error {
	parts := strings.Split(id, "/")
	ok := len(id) <= 96 && len(parts) <= 2 && !strings.Contains(id, "--") && !strings.Contains(id, "..")
	for _, p := range parts {
		ok = ok && repoPart.MatchString(p)
	}
	if !ok {
		return fmt.Errorf("%q is not the name of a model on a hub, such as suno/bark-small", id)
	}
	return nil
}

// CheckRevision says why revision cannot be a branch, a tag or a commit.
func CheckRevision(revision string) error {
	if !revisionOK.MatchString(revision) || checkPath(revision) != nil {
		return fmt.Errorf("%q is not a branch, a tag or a commit", revision)
	}
	return nil
}

// checkPath refuses names that could leave the snapshot's folder on any system, or confuse a terminal.
func checkPath(path string) error {
	bad := path == "" || len(path) > maxPathBytes || !utf8.ValidString(path) ||
		strings.ContainsFunc(path, func(r rune) bool { return r == '\\' || r == ':' || unicode.IsControl(r) })
	for _, part := range strings.Split(path, "/") {
		bad = bad || part == "" || part == "." || part == ".." || len(part) > 255
	}
	if bad {
		return fmt.Errorf("%w: it lists a file named %q", ErrHostile, path)
	}
	return nil
}

// parseListing reads the answer of /api/models/ID/revision/REV?blobs=true.
func parseListing(body []byte, id, revision string) (Repo, error) {
	var listing struct {
		SHA      string `json:"sha"`
		Siblings []struct {
			Path   string `json:"rfilename"`
			Size   *int64 `json:"size"`
			BlobID string `json:"blobId"`
			LFS    *struct {
				SHA256 string `json:"sha256"`
				Size   *int64 `json:"size"`
			} `json:"lfs"`
		} `json:"siblings"`
	}
	if err := json.Unmarshal(body, &listing); err != nil {
		return Repo{}, fmt.Errorf("the hub's file list of %s is not what it should be: %w", id, err)
	}
	if !hex40.MatchString(listing.SHA) {
		return Repo{}, fmt.Errorf("%w: the commit of %s is %q", ErrHostile, id, listing.SHA)
	}
	if len(listing.Siblings) > maxFiles {
		return Repo{}, fmt.Errorf("%w: %s has %d files", ErrHostile, id, len(listing.Siblings))
	}
	repo := Repo{ID: id, Revision: revision, Commit: listing.SHA}
	seen := make(map[string]bool, len(listing.Siblings))
	for _, s := range listing.Siblings {
		f := File{Path: s.Path, Size: -1}
		if err := checkPath(f.Path); err != nil {
			return Repo{}, err
		}
		if seen[f.Path] {
			return Repo{}, fmt.Errorf("%w: it lists %s twice", ErrHostile, f.Path)
		}
		seen[f.Path] = true
		if s.Size != nil {
			f.Size = *s.Size
		}
		if s.LFS != nil {
			// blobId is then the digest of git's pointer, not of the content.
			f.SHA256 = s.LFS.SHA256
			if s.LFS.Size != nil {
				f.Size = *s.LFS.Size
			}
		} else {
			f.GitSHA1 = s.BlobID
		}
		if err := f.check(); err != nil {
			return Repo{}, err
		}
		repo.Files = append(repo.Files, f)
	}
	return repo, nil
}

// withHeader completes f with what the hub's own answer to a HEAD request says. For a file in large storage that is
// X-Linked-Etag and X-Linked-Size; ETag and Content-Length would be those of the redirect.
func (f File) withHeader(h http.Header, length int64) (File, error) {
	etag := h.Get("X-Linked-Etag")
	if etag == "" {
		etag = h.Get("ETag")
	}
	etag = strings.Trim(strings.TrimPrefix(etag, "W/"), `"`)
	if linked := h.Get("X-Linked-Size"); linked != "" {
		n, err := strconv.ParseInt(linked, 10, 64)
		if err != nil {
			return f, fmt.Errorf("%w: the size of %s is %q", ErrHostile, f.Path, linked)
		}
		f.Size = n
	} else if length >= 0 {
		f.Size = length
	}
	f.SHA256, f.GitSHA1, f.ETag = "", "", ""
	switch {
	case hex64.MatchString(etag):
		f.SHA256 = etag
	case hex40.MatchString(etag):
		f.GitSHA1 = etag
	default:
		f.ETag = etag
	}
	if err := f.check(); err != nil {
		return f, err
	}
	if f.Blob() == "" || f.Size < 0 {
		return f, fmt.Errorf("the hub says neither in its list nor in its headers what %s is (ETag %q, %d bytes)", f.Path, etag, f.Size)
	}
	return f, nil
}

// check refuses digests and sizes that cannot be. Digests become file names.
func (f File) check() error {
	ok := f.Size >= -1 && f.Size <= maxFileBytes &&
		(f.SHA256 == "" || hex64.MatchString(f.SHA256)) &&
		(f.GitSHA1 == "" || hex40.MatchString(f.GitSHA1)) &&
		(f.ETag == "" || blobName.MatchString(f.ETag))
	if !ok {
		return fmt.Errorf("%w: the size or digest of %s cannot be (%d bytes, %q)", ErrHostile, f.Path, f.Size, f.Blob())
	}
	return nil
}

// known says whether the listing alone told everything a download needs.
func (f File) known() bool { return f.Blob() != "" && f.Size >= 0 }
