package main

import (
	"context"
	"fmt"

	"barkd/server/models"
	"barkd/server/models/convert"
	"barkd/server/models/hub"
)

// pullCommand is `barkd pull`.
type pullCommand struct {
	storeFlags
	ID       string `arg:"" name:"id" help:"Id on the hub, such as suno/bark-small."`
	Type     string `enum:",f32,bf16,f16,q8,q4" default:"" placeholder:"f32|bf16|f16|q8|q4" help:"Type of the matrices; default is that of the source."`
	Revision string `help:"Branch, tag or commit; default is main."`
}

// Help says which hub: the variables are Hugging Face's own, not settings of this program.
func (*pullCommand) Help() string {
	return "The hub, the token, the cache folder and offline mode are those of Hugging Face's own programs: $HF_ENDPOINT, $HF_TOKEN, " +
		"$HF_HOME, $HF_HUB_CACHE, $HF_HUB_OFFLINE. An interrupted download goes on where it stopped."
}

// Run downloads and converts with a progress bar on stderr.
func (c *pullCommand) Run(ctx context.Context, io stdio, env environ) error {
	store, err := models.Open(c.Models)
	if err != nil {
		return err
	}
	cfg, err := hub.ConfigFromEnv(env.get)
	if err != nil {
		return err
	}
	show := showProgress(io.err, !cfg.DisableProgressBars)
	pulled, err := models.Pull(ctx, store, hub.New(cfg, hub.Options{Log: show.line}), c.ID, c.Revision, convert.Type(c.Type), show.update, show.line)
	show.done()
	if err != nil {
		return err
	}
	for _, remark := range pulled.Report.Remarks {
		fmt.Fprintln(io.err, "note: "+remark)
	}
	_, err = fmt.Fprintf(io.out, "%s: %s\n", pulled.ID, pulled.Path)
	return err
}
