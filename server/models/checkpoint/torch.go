package checkpoint

import (
	"archive/zip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
)

// readZip reads torch's zip format: a folder with data.pkl and one stored member per storage.
func readZip(r io.ReaderAt, size int64) (any, error) {
	z, err := zip.NewReader(r, size)
	if err != nil {
		return nil, fmt.Errorf("zip: %w", err)
	}
	members := make(map[string]*zip.File)
	var pickle *zip.File
	for _, f := range z.File {
		if err := plainMember(f, members); err != nil {
			return nil, fmt.Errorf("zip: member %q: %w", f.Name, err)
		}
		members[f.Name] = f
		if path.Base(f.Name) == "data.pkl" && strings.Count(f.Name, "/") == 1 {
			if pickle != nil {
				return nil, errors.New("zip: two pickles of the name data.pkl")
			}
			pickle = f
		}
	}
	if pickle == nil {
		return nil, errors.New("zip: no data.pkl inside: not a file of torch.save")
	}
	if pickle.UncompressedSize64 > maxPickleBytes {
		return nil, fmt.Errorf("zip: data.pkl has %d bytes, limit %d", pickle.UncompressedSize64, maxPickleBytes)
	}
	folder := path.Dir(pickle.Name)
	if err := littleEndian(members[folder+"/byteorder"]); err != nil {
		return nil, err
	}
	in, err := pickle.Open()
	if err != nil {
		return nil, fmt.Errorf("zip: %w", err)
	}
	defer in.Close()
	u := newUnpickler(in, func(id storeID) (*storage, error) {
		return memberStorage(r, size, members[folder+"/data/"+id.key], id)
	})
	v, err := u.load()
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(io.Discard, in); err != nil { // to its end, where the checksum is compared
		return nil, fmt.Errorf("zip: data.pkl: %w", err)
	}
	return v, nil
}

// plainMember refuses names that mean trouble, and compression, which torch never uses.
func plainMember(f *zip.File, seen map[string]*zip.File) error {
	switch {
	case seen[f.Name] != nil:
		return errors.New("appears twice")
	case strings.Contains(f.Name, "\\") || !fs.ValidPath(strings.TrimSuffix(f.Name, "/")):
		return errors.New("is no plain path")
	case f.Method != zip.Store || f.CompressedSize64 != f.UncompressedSize64:
		return errors.New("is compressed, which torch.save never does")
	}
	return nil
}

func littleEndian(f *zip.File) error {
	if f == nil {
		return nil
	}
	r, err := f.Open()
	if err != nil {
		return fmt.Errorf("zip: %w", err)
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, 16))
	if err != nil {
		return fmt.Errorf("zip: byteorder: %w", err)
	}
	if s := strings.TrimSpace(string(b)); s != "little" {
		return fmt.Errorf("byte order %q is not supported", s)
	}
	return nil
}

func memberStorage(r io.ReaderAt, size int64, f *zip.File, id storeID) (*storage, error) {
	if f == nil {
		return nil, fmt.Errorf("storage %q is not in the archive", id.key)
	}
	want := id.count * id.dtype.Size()
	if f.UncompressedSize64 != uint64(want) {
		return nil, fmt.Errorf("storage %q has %d bytes, want %d", id.key, f.UncompressedSize64, want)
	}
	at, err := f.DataOffset()
	if err != nil {
		return nil, fmt.Errorf("storage %q: %w", id.key, err)
	}
	if at < 0 || at > size || want > size-at {
		return nil, fmt.Errorf("storage %q lies outside the file", id.key)
	}
	return &storage{dtype: id.dtype, count: id.count, at: at, file: r}, nil
}

// legacyMagic is the first pickle of the format before torch 1.6: one large number.
const legacyMagic = "\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."

// readLegacy reads the format before torch 1.6: pickles of a magic number, a version, the writer's machine, the object
// and the storages' keys, then each storage with its length before it.
func readLegacy(r io.ReaderAt, size int64) (any, error) {
	pending := make(map[string]*storage)
	start := int64(len(legacyMagic))
	u := newUnpickler(io.NewSectionReader(r, start, size-start), func(id storeID) (*storage, error) {
		s := &storage{dtype: id.dtype, count: id.count, at: -1, file: r}
		pending[id.key] = s
		return s, nil
	})
	version, err := u.load()
	if err != nil {
		return nil, err
	}
	if version != int64(1001) {
		return nil, fmt.Errorf("legacy torch file of protocol %v, want 1001", version)
	}
	machine, err := u.load()
	if err != nil {
		return nil, err
	}
	if d, ok := machine.(*Dict); !ok {
		return nil, errors.New("legacy torch file does not describe its machine")
	} else if little, _ := d.Get("little_endian"); little != true {
		return nil, errors.New("legacy torch file is not little-endian")
	}
	v, err := u.load()
	if err != nil {
		return nil, err
	}
	keys, err := u.load()
	if err != nil {
		return nil, err
	}
	return v, locate(r, size, start+u.pos, keys, pending)
}

// locate walks the storages that follow the pickles.
func locate(r io.ReaderAt, size, at int64, keys any, pending map[string]*storage) error {
	l, ok := keys.(*list)
	if !ok || len(l.items) != len(pending) {
		return errors.New("legacy torch file does not list its storages")
	}
	for _, item := range l.items {
		key, _ := item.(string)
		s := pending[key]
		if s == nil || s.at >= 0 {
			return fmt.Errorf("storage %q is listed twice or never used", key)
		}
		var count [8]byte
		if _, err := r.ReadAt(count[:], at); err != nil {
			return fmt.Errorf("storage %q is cut off", key)
		}
		if n := binary.LittleEndian.Uint64(count[:]); n != uint64(s.count) {
			return fmt.Errorf("storage %q has %d elements, want %d", key, n, s.count)
		}
		at += 8
		bytes := s.count * s.dtype.Size()
		if bytes > size-at {
			return fmt.Errorf("storage %q is cut off", key)
		}
		s.at = at
		at += bytes
	}
	return nil
}
