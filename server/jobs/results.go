package jobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"barkd/server/models/atomicfile"
)

// Results keeps the audio of jobs. A result is there whole or not at all; a second Put of an id replaces the first.
type Results interface {
	Put(ctx context.Context, id, contentType string, audio io.Reader, size int64) error
	// Get returns the audio; ErrNotFound when it is not there. The caller must close it.
	Get(ctx context.Context, id string) (io.ReadCloser, int64, error)
}

// OpenResults opens a folder, which is made, or s3://bucket/prefix. Of S3, env says AWS_ENDPOINT_URL (default Amazon's),
// AWS_REGION, and the keys as Amazon's tools read them.
func OpenResults(ctx context.Context, where string, env func(string) string) (Results, error) {
	if !strings.HasPrefix(where, "s3://") {
		if err := os.MkdirAll(where, 0o750); err != nil {
			return nil, err
		}
		return folder(where), nil
	}
	at, err := url.Parse(where)
	if err != nil || at.Host == "" {
		return nil, fmt.Errorf("%q must be s3://bucket or s3://bucket/prefix", where)
	}
	endpoint := &url.URL{Scheme: "https", Host: "s3.amazonaws.com"}
	if text := env("AWS_ENDPOINT_URL"); text != "" {
		if endpoint, err = url.Parse(text); err != nil || endpoint.Host == "" {
			return nil, fmt.Errorf("AWS_ENDPOINT_URL=%q must be a URL such as https://s3.example.org", text)
		}
	}
	client, err := minio.New(endpoint.Host, &minio.Options{
		Secure: endpoint.Scheme == "https", Region: env("AWS_REGION"),
		Creds: credentials.NewStaticV4(env("AWS_ACCESS_KEY_ID"), env("AWS_SECRET_ACCESS_KEY"), env("AWS_SESSION_TOKEN")),
	})
	if err != nil {
		return nil, err
	}
	there, err := client.BucketExists(ctx, at.Host)
	if err != nil {
		return nil, fmt.Errorf("look for the bucket %s: %w", at.Host, err)
	}
	if !there {
		return nil, fmt.Errorf("there is no bucket %s", at.Host)
	}
	return &bucket{client: client, name: at.Host, prefix: strings.TrimPrefix(at.Path, "/")}, nil
}

// folder keeps results as files.
type folder string

func (f folder) path(id string) string { return filepath.Join(string(f), id) }

// Put implements Results.
func (f folder) Put(_ context.Context, id, _ string, audio io.Reader, _ int64) error {
	return atomicfile.Write(f.path(id), func(to *os.File) error {
		_, err := io.Copy(to, audio)
		return err
	})
}

// Get implements Results.
func (f folder) Get(_ context.Context, id string) (io.ReadCloser, int64, error) {
	file, err := os.Open(f.path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, ErrNotFound
	}
	if err != nil {
		return nil, 0, err
	}
	st, err := file.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, file.Close())
	}
	return file, st.Size(), nil
}

// bucket keeps results in S3.
type bucket struct {
	client       *minio.Client
	name, prefix string
}

func (b *bucket) key(id string) string {
	if b.prefix == "" {
		return id
	}
	return strings.TrimSuffix(b.prefix, "/") + "/" + id
}

// Put implements Results.
func (b *bucket) Put(ctx context.Context, id, contentType string, audio io.Reader, size int64) error {
	_, err := b.client.PutObject(ctx, b.name, b.key(id), audio, size, minio.PutObjectOptions{ContentType: contentType})
	return err
}

// Get implements Results.
func (b *bucket) Get(ctx context.Context, id string) (io.ReadCloser, int64, error) {
	object, err := b.client.GetObject(ctx, b.name, b.key(id), minio.GetObjectOptions{})
	if err != nil {
		return nil, 0, err
	}
	st, err := object.Stat()
	if err == nil {
		return object, st.Size, nil
	}
	_ = object.Close()
	if minio.ToErrorResponse(err).Code == minio.NoSuchKey {
		return nil, 0, ErrNotFound
	}
	return nil, 0, err
}
