// Package hubtest is a small Hugging Face hub for tests: the protocol that package hub speaks, on two
// local addresses (the hub and its storage), with faults on request. It uses no network.
package hubtest

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Repo is a model repository at one commit.
type Repo struct {
	ID      string
	Files   map[string][]byte
	Gated   bool // files need a token; the list does not
	Private bool // everything needs a token
}

// Commit returns a commit that depends on every byte of the repository.
func (r *Repo) Commit() string {
	h := sha1.New()
	for _, name := range slices.Sorted(maps.Keys(r.Files)) {
		fmt.Fprintf(h, "%s %s\n", name, SHA256(r.Files[name]))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Dir returns a repository with the files of a folder, such as one that transformers wrote.
func Dir(t testing.TB, id, dir string) *Repo {
	t.Helper()
	r := &Repo{ID: id, Files: map[string][]byte{}}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		r.Files[filepath.ToSlash(name)], err = os.ReadFile(p)
		return err
	})
	if err != nil {
		t.Fatalf("hubtest: %v", err)
	}
	return r
}

// Request is one request the server saw.
type Request struct {
	Storage       bool // asked of the storage, not of the hub
	Method        string
	Path          string // of the URL
	File          string // of the repository, or ""
	Range         string
	Authorization string
}

// Server is a running hub.
type Server struct {
	URL     string // what HF_ENDPOINT is set to
	Storage string // where large files are redirected to

	// Token is the one that opens gated and private repositories.
	Token string
	// Terse leaves sizes and digests out of the list of files, as simple mirrors do.
	Terse bool
	// NoDigests makes ETags mean nothing.
	NoDigests bool

	mu       sync.Mutex // guards the fields below
	repos    map[string]*served
	requests []Request
	faults   map[string][]Fault
}

// served is a repository with the digests of its files, which would take long to compute for each request.
type served struct {
	*Repo
	commit string
	sha256 map[string]string
}

// New starts a hub that the test's end stops. Token is "hf_test".
func New(t testing.TB, repos ...*Repo) *Server {
	s := &Server{Token: "hf_test", repos: map[string]*served{}, faults: map[string][]Fault{}}
	for _, r := range repos {
		s.Put(r)
	}
	storage := httptest.NewServer(http.HandlerFunc(s.serveStorage))
	t.Cleanup(storage.Close)
	front := httptest.NewServer(http.HandlerFunc(s.serveHub))
	t.Cleanup(front.Close)
	s.URL, s.Storage = front.URL, storage.URL
	return s
}

// Put adds or replaces a repository, whose files must not change any more.
func (s *Server) Put(r *Repo) {
	one := &served{Repo: r, commit: r.Commit(), sha256: map[string]string{}}
	for name, data := range r.Files {
		one.sha256[name] = SHA256(data)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.repos[r.ID] = one
}

// Requests returns what was asked so far.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Fetches counts the requests for the content of each file.
func (s *Server) Fetches() map[string]int {
	n := map[string]int{}
	for _, r := range s.Requests() {
		if r.Method == http.MethodGet && r.File != "" && (r.Storage || !isLarge(r.File)) {
			n[r.File]++
		}
	}
	return n
}

// isLarge says whether a file is kept in large file storage, by the usual .gitattributes.
func isLarge(name string) bool {
	return slices.Contains([]string{".bin", ".safetensors", ".pt", ".th", ".npy", ".npz"}, path.Ext(name))
}

// SHA256 is the hub's digest of a large file.
func SHA256(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// GitSHA1 is the hub's digest of a small file: that of the git blob.
func GitSHA1(data []byte) string {
	sum := sha1.Sum(append(fmt.Appendf(nil, "blob %d\x00", len(data)), data...))
	return hex.EncodeToString(sum[:])
}

// note records a request and takes the fault that is due for it. Faults of a large file wait for the storage.
func (s *Server) note(storage bool, r *http.Request, file string) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, Request{Storage: storage, Method: r.Method, Path: r.URL.Path, File: file,
		Range: r.Header.Get("Range"), Authorization: r.Header.Get("Authorization")})
	key := file
	if r.Method == http.MethodHead {
		key = "HEAD " + file
	} else if isLarge(file) && !storage {
		return Fault{}
	}
	due := s.faults[key]
	if len(due) == 0 {
		return Fault{}
	}
	s.faults[key] = due[1:]
	return due[0]
}

func (s *Server) repo(id string) *served {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.repos[id]
}

func fail(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("X-Error-Code", code)
	w.Header().Set("X-Error-Message", message)
	http.Error(w, message, status)
}

func (s *Server) serveHub(w http.ResponseWriter, r *http.Request) {
	if rest, ok := strings.CutPrefix(r.URL.EscapedPath(), "/api/models/"); ok {
		id, revision, ok := strings.Cut(rest, "/revision/")
		if s.note(false, r, "").status(w) {
			return
		}
		revision, _ = url.PathUnescape(revision)
		if !ok {
			revision = "main"
		}
		if repo := s.open(w, r, id, revision, false); repo != nil {
			s.list(w, repo, r.URL.Query().Get("blobs") == "true" && !s.Terse)
		}
		return
	}
	id, rest, ok := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/resolve/")
	revision, file, _ := strings.Cut(rest, "/")
	fault := s.note(false, r, file)
	if fault.status(w) {
		return
	}
	if !ok {
		fail(w, http.StatusNotFound, "", "no such page")
		return
	}
	repo := s.open(w, r, id, revision, true)
	if repo == nil {
		return
	}
	data, ok := repo.Files[file]
	if !ok {
		fail(w, http.StatusNotFound, "EntryNotFound", "Entry not found")
		return
	}
	w.Header().Set("X-Repo-Commit", repo.commit)
	etag := repo.sha256[file]
	if !isLarge(file) {
		etag = GitSHA1(data)
	}
	if s.NoDigests {
		etag = "version-1-of-" + path.Base(file)
	}
	w.Header().Set("ETag", `"`+etag+`"`)
	if !isLarge(file) {
		fault.serve(w, r, data)
		return
	}
	w.Header().Set("X-Linked-Etag", `"`+etag+`"`)
	w.Header().Set("X-Linked-Size", fmt.Sprint(len(data)))
	http.Redirect(w, r, s.Storage+"/"+id+"/"+file+"?signature=secret", http.StatusFound)
}

// open checks the caller's right to the repository and the revision: main, a pull request, or the commit.
func (s *Server) open(w http.ResponseWriter, r *http.Request, id, revision string, content bool) *served {
	repo := s.repo(id)
	authorization := r.Header.Get("Authorization")
	known := authorization == "Bearer "+s.Token
	switch {
	case authorization != "" && !known:
		fail(w, http.StatusUnauthorized, "", "Invalid credentials in Authorization header")
	case (repo == nil || repo.Private) && !known:
		fail(w, http.StatusUnauthorized, "RepoNotFound", "Repository not found")
	case repo == nil:
		fail(w, http.StatusNotFound, "RepoNotFound", "Repository not found")
	case repo.Gated && content && !known:
		fail(w, http.StatusUnauthorized, "GatedRepo", "Access to model "+id+" is restricted")
	case !slices.Contains([]string{"main", "refs/pr/1", repo.commit}, revision):
		fail(w, http.StatusNotFound, "RevisionNotFound", "Invalid rev id: "+revision)
	default:
		return repo
	}
	return nil
}

func (s *Server) list(w http.ResponseWriter, repo *served, blobs bool) {
	type sibling map[string]any
	siblings := []sibling{}
	for _, name := range slices.Sorted(maps.Keys(repo.Files)) {
		data := repo.Files[name]
		one := sibling{"rfilename": name}
		if blobs {
			one["size"] = len(data)
			if !isLarge(name) {
				one["blobId"] = GitSHA1(data)
			} else {
				pointer := fmt.Appendf(nil, "oid sha256:%s\nsize %d\n", repo.sha256[name], len(data))
				one["blobId"] = GitSHA1(pointer)
				one["lfs"] = map[string]any{"sha256": repo.sha256[name], "size": len(data), "pointerSize": len(pointer)}
			}
		}
		siblings = append(siblings, one)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_ = json.NewEncoder(w).Encode(map[string]any{"_id": "621ffdc1", "id": repo.ID, "modelId": repo.ID, "private": repo.Private,
		"gated": repo.Gated, "sha": repo.commit, "siblings": siblings})
}

func (s *Server) serveStorage(w http.ResponseWriter, r *http.Request) {
	parts := strings.SplitN(strings.TrimPrefix(r.URL.Path, "/"), "/", 3)
	if len(parts) != 3 {
		http.NotFound(w, r)
		return
	}
	fault := s.note(true, r, parts[2])
	if r.Header.Get("Authorization") != "" { // a signed address and a token: storages refuse that
		http.Error(w, "only one authentication mechanism is allowed", http.StatusBadRequest)
		return
	}
	repo := s.repo(parts[0] + "/" + parts[1])
	if repo == nil || r.URL.Query().Get("signature") != "secret" {
		http.Error(w, "not signed", http.StatusForbidden)
		return
	}
	if fault.status(w) {
		return
	}
	w.Header().Set("ETag", `"storage-has-its-own"`)
	fault.serve(w, r, repo.Files[parts[2]])
}

func serveContent(w http.ResponseWriter, r *http.Request, data []byte) {
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}
