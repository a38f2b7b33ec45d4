package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"barkd/server/models"
	"barkd/server/models/convert"
)

// convertCommand is `barkd convert`.
type convertCommand struct {
	Source string `arg:"" help:"Folder of a checkpoint: Hugging Face's files, or suno's three .pt with EnCodec's .th."`
	Output string `short:"o" required:"" help:"The .gguf file to write."`
	Type   string `enum:",f32,bf16,f16,q8" default:"" placeholder:"f32|bf16|f16|q8" help:"Type of the matrices; default is that of the source."`
	Name   string `help:"Id that the file says it is; default is the folder's name."`
}

// Run converts with a progress bar on stderr.
func (c *convertCommand) Run(ctx context.Context, io stdio, env environ) error {
	update, done := progressOn(io.err, env)
	report, err := convert.Convert(ctx, convert.Options{
		Source: c.Source, Out: c.Output, Type: convert.Type(c.Type), Name: c.Name,
		Progress: func(done, total int64) { update("convert", done, total, "") },
	})
	done()
	if err != nil {
		return err
	}
	for _, remark := range report.Remarks {
		fmt.Fprintln(io.err, "note: "+remark)
	}
	fmt.Fprintf(io.out, "%s: %d tensors, %s, %s, %d voices\n", report.Out, report.Tensors, report.Type, megabytes(report.Bytes), len(report.Voices))
	return nil
}

// progressOn shows a long operation on w if it is a file. done must be called at the end, failed or not.
func progressOn(w io.Writer, env environ) (update models.ProgressFunc, done func()) {
	file, ok := w.(*os.File)
	if !ok {
		return func(string, int64, int64, string) {}, func() {}
	}
	quiet := map[string]bool{"1": true, "true": true, "yes": true, "on": true}[env.get("HF_HUB_DISABLE_PROGRESS_BARS")]
	p := models.NewProgress(file, !quiet)
	return p.Update, p.Close
}
