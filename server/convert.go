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
	Type   string `enum:",f32,bf16,f16,q8,q4" default:"" placeholder:"f32|bf16|f16|q8|q4" help:"Type of the matrices; default is that of the source."`
	Name   string `help:"Id that the file says it is; default is the folder's name."`
}

// Run converts with a progress bar on stderr.
func (c *convertCommand) Run(ctx context.Context, io stdio) error {
	show := showProgress(io.err, true)
	report, err := convert.Convert(ctx, convert.Options{
		Source: c.Source, Out: c.Output, Type: convert.Type(c.Type), Name: c.Name,
		Progress: func(done, total int64) { show.update(models.StepConvert, done, total, "") },
	})
	show.done()
	if err != nil {
		return err
	}
	for _, remark := range report.Remarks {
		fmt.Fprintln(io.err, "note: "+remark)
	}
	_, err = fmt.Fprintf(io.out, "%s: %d tensors, %s, %s, %d voices\n", report.Out, report.Tensors, report.Type, megabytes(report.Bytes), len(report.Voices))
	return err
}

// progress shows a long operation. done is to be called at its end, failed or not.
type progress struct {
	update models.ProgressFunc
	line   func(string)
	done   func()
}

// showProgress draws bars if w is a terminal; what is no file at all gets the lines alone.
func showProgress(w io.Writer, bars bool) progress {
	file, ok := w.(*os.File)
	if !ok {
		return progress{
			update: func(string, int64, int64, string) {},
			line:   func(line string) { fmt.Fprintln(w, line) },
			done:   func() {},
		}
	}
	p := models.NewProgress(file, bars)
	return progress{update: p.Update, line: p.Log, done: p.Close}
}
