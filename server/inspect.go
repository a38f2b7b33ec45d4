package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"text/tabwriter"

	"barkd/cgo"
	"barkd/server/models"
	"barkd/server/models/gguf"
)

// inspectCommand is `barkd inspect`.
type inspectCommand struct {
	storeFlags
	File string `arg:"" help:"A .gguf file, or the id of a model on this machine."`
}

// Run shows all of the file but the numbers in it.
func (c *inspectCommand) Run(ctx context.Context, io stdio) error {
	store, err := models.Open(c.Models)
	if err != nil {
		return err
	}
	src, err := store.ResolveArgument(c.File)
	if errors.Is(err, models.ErrBadID) {
		return fmt.Errorf("%s is neither a .gguf file nor the id of a model", c.File)
	}
	if err != nil {
		return err
	}
	if src.Embedded {
		return fmt.Errorf("%w: %s is part of the program and has no file", cgo.ErrUnsupported, c.File)
	}
	file, err := gguf.Open(src.Path)
	if err != nil {
		return err
	}
	return errors.Join(inspect(ctx, io.out, file), file.Close())
}

func inspect(ctx context.Context, out io.Writer, file *gguf.File) error {
	fmt.Fprintf(out, "%s\n%d bytes, %d tensors from byte %d, aligned to %d\n\n", file.Path, file.Size, len(file.Tensors), file.DataOffset, file.Alignment)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, e := range file.Metadata {
		fmt.Fprintf(w, "%s\t%s\n", printable(e.Key), metadataValue(e.Value))
	}
	fmt.Fprintln(w)
	fmt.Fprintln(w, "TENSOR\tTYPE\tSHAPE\tBYTES\tSHA-256")
	byType, types := map[string]int64{}, []string{}
	for _, t := range file.Tensors {
		if err := ctx.Err(); err != nil {
			return err
		}
		digest, err := file.TensorSHA256(t)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\n", printable(t.Name), t.Type, shape(t.Shape), t.Bytes, digest)
		name := t.Type.String()
		if _, ok := byType[name]; !ok {
			types = append(types, name)
		}
		byType[name] += t.Bytes
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	for _, name := range types {
		fmt.Fprintf(out, "%d bytes of %s\n", byType[name], name)
	}
	digest, err := file.SHA256()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "file sha256 %s\n", digest)
	return err
}

func shape(dims []int64) string {
	parts := make([]string, len(dims))
	for i, d := range dims {
		parts[i] = strconv.FormatInt(d, 10)
	}
	return strings.Join(parts, "x")
}

// maxListed is the length up to which a list of the metadata is shown whole: constants and digests, not vocabularies.
const maxListed = 32

// metadataValue shows one value on one line.
func metadataValue(value any) string {
	if text, ok := value.(string); ok {
		return printable(text)
	}
	list := reflect.ValueOf(value)
	if list.Kind() != reflect.Slice {
		return fmt.Sprint(value)
	}
	if list.Len() > maxListed {
		return fmt.Sprintf("%d of %s", list.Len(), list.Type().Elem())
	}
	parts := make([]string, list.Len())
	for i := range parts {
		parts[i] = printable(fmt.Sprint(list.Index(i)))
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

// printable keeps a file's texts from moving the cursor or filling the screen.
func printable(text string) string {
	const most = 200
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	quoted := strconv.Quote(text)
	if quoted == `"`+text+`"` && text != "" {
		return text
	}
	return quoted
}
