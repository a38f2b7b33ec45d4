package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/rs/zerolog"

	"barkd/server/api"
	"barkd/server/models/voicefile"
	"barkd/server/speech"
	"barkd/server/voices"
)

// voicesCommand is `barkd voices`. A server that runs sees what is done to its folder.
type voicesCommand struct {
	List   voicesListCommand   `cmd:"" default:"withargs" help:"List the voices of a model and the stored ones."`
	Add    voicesAddCommand    `cmd:"" help:"Store a voice."`
	Remove voicesRemoveCommand `cmd:"" help:"Delete a stored voice."`
	Export voicesExportCommand `cmd:"" help:"Write a stored voice to a file."`
}

// voicesListCommand is `barkd voices list`.
type voicesListCommand struct {
	runtimeFlags
	voiceDirFlag
	Model string `default:"barkd/tiny" help:"Id of a model, or a .gguf file."`
}

// Run lists a model's voices, one a line, then the stored ones with their ids.
func (c *voicesListCommand) Run(ctx context.Context, io stdio, env environ) error {
	b, err := c.runtimeFlags.open(io)
	if err != nil {
		return err
	}
	src, err := b.argument(c.Model)
	if err != nil {
		return err
	}
	info, _, err := describe(ctx, b.runtime, src)
	if err != nil {
		return err
	}
	if len(info.Voices) == 0 {
		fmt.Fprintf(io.err, "%s has no voices\n", c.Model)
	}
	for _, v := range info.Voices {
		fmt.Fprintln(io.out, v)
	}
	store, err := voiceConfig{dir: c.VoicesDir}.open(env.get, zerolog.Nop())
	if err != nil || store == nil {
		return err
	}
	all, err := store.List()
	if err != nil {
		return err
	}
	for _, v := range all {
		fmt.Fprintf(io.out, "%s\t%s\n", v.Name, v.ID)
	}
	return nil
}

// voicesAddCommand is `barkd voices add`.
type voicesAddCommand struct {
	runtimeFlags
	voiceFlags
	Name  string `arg:"" help:"What 'voice' may call it."`
	File  string `arg:"" help:"An .npz file, or the prefix of .npy files."`
	Model string `help:"Id of the model whose voice it is; it is checked against it."`
}

// Run stores a voice and shows its id.
func (c *voicesAddCommand) Run(ctx context.Context, io stdio, env environ) error {
	var s settings
	cfg := c.voiceFlags.read(&s)
	if err := s.err(); err != nil {
		return err
	}
	store, err := cfg.mustOpen(env)
	if err != nil {
		return err
	}
	arrays, err := voicefile.Read(c.File)
	if err != nil {
		return err
	}
	b, threads, err := c.openRuntime(io)
	if err != nil {
		return err
	}
	all, err := b.catalogue.List(ctx)
	if err != nil {
		return err
	}
	if api.NameTaken(c.Name, all) {
		return fmt.Errorf("the name %q means another voice already: a model's own and OpenAI's names come first", c.Name)
	}
	if c.Model != "" {
		service := speech.NewService(&oneModel{b: b, threads: threads}, speech.NewAdmission(speech.Limits{Running: 1}), zerolog.Nop())
		if err := service.CheckVoice(ctx, c.Model, arrays); err != nil {
			return err
		}
	}
	v, err := store.Add(voices.Voice{Name: c.Name, Origin: voices.Uploaded, Model: c.Model}, arrays)
	if err != nil {
		return err
	}
	fmt.Fprintln(io.out, v.ID)
	return nil
}

// mustOpen opens the folder where there must be one.
func (c voiceConfig) mustOpen(env environ) (*voices.Store, error) {
	store, err := c.open(env.get, zerolog.Nop())
	if err == nil && store == nil {
		err = &usageError{errors.New("there is no folder of voices: set VOICES_DIR")}
	}
	return store, err
}

// voicesRemoveCommand is `barkd voices remove`.
type voicesRemoveCommand struct {
	voiceDirFlag
	Voice string `arg:"" help:"Its id or name."`
}

// Run deletes a stored voice.
func (c *voicesRemoveCommand) Run(env environ) error {
	store, v, err := c.find(env, c.Voice)
	if err != nil {
		return err
	}
	return store.Remove(v.ID)
}

// voicesExportCommand is `barkd voices export`.
type voicesExportCommand struct {
	voiceDirFlag
	Voice  string `arg:"" help:"Its id or name."`
	Output string `short:"o" required:"" placeholder:"FILE" help:"The .npz to write."`
}

// Run writes a stored voice to a file that suno's Bark reads.
func (c *voicesExportCommand) Run(env environ) error {
	store, v, err := c.find(env, c.Voice)
	if err != nil {
		return err
	}
	arrays, err := store.Arrays(v.ID)
	if err != nil {
		return err
	}
	return voicefile.Write(c.Output, arrays)
}

func (f voiceDirFlag) find(env environ, idOrName string) (*voices.Store, voices.Voice, error) {
	store, err := voiceConfig{dir: f.VoicesDir}.mustOpen(env)
	if err != nil {
		return nil, voices.Voice{}, err
	}
	v, err := store.Find(idOrName)
	return store, v, err
}
