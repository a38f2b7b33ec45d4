package main

// commandLine is the grammar: one field a command.
type commandLine struct {
	Serve   serveCommand   `cmd:"" help:"Serve the HTTP API."`
	Health  healthCommand  `cmd:"" help:"Ask a running server whether it is alive, or ready."`
	Say     sayCommand     `cmd:"" help:"Speak a text: play it, or write a file."`
	Synth   synthCommand   `cmd:"" help:"Speak a text into a file, without a server."`
	Pull    pullCommand    `cmd:"" help:"Fetch a model from a Hugging Face hub and convert it."`
	Convert convertCommand `cmd:"" help:"Convert a checkpoint folder to one GGUF file."`
	Models  modelsCommand  `cmd:"" help:"List the models on this machine."`
	Voices  voicesCommand  `cmd:"" help:"List the voices of a model and the stored ones; add, remove and export those."`
	Inspect inspectCommand `cmd:"" help:"Show a model file's configuration, tensors, types, bytes and digests."`
	Devices devicesCommand `cmd:"" help:"List the devices that can run a model."`
	Cache   cacheCommand   `cmd:"" help:"Look at what a recorded trace says about the model cache."`
	Version versionCommand `cmd:"" help:"Show the version."`
}

// storeFlags say where models are kept.
type storeFlags struct {
	Models string `var:"BARKD_MODELS" placeholder:"DIR" help:"Folder of the models; default is in the user's cache folder."`
}

// runtimeFlags say what runs models.
type runtimeFlags struct {
	storeFlags
	Backend       string `var:"BARKD_BACKEND" default:"native" placeholder:"native" help:"native, or mock for a simulated runtime without weights."`
	MockTimeScale string `var:"MOCK_TIME_SCALE" default:"1" placeholder:"1" help:"Factor on the times of the simulated runtime."`
	MockFaults    string `var:"MOCK_FAULTS" placeholder:"PLAN" help:"What goes wrong in the simulated runtime: JSON (mock.Faults), or @FILE of it."`
	MockGPUs      string `name:"mock-gpus" var:"MOCK_GPUS" placeholder:"SIZE,SIZE" help:"GPUs of the simulated runtime: the memory of each, such as 24GB,24GB."`
	Threads       string `var:"BARKD_THREADS" default:"0" placeholder:"0" help:"CPU threads; 0 is one per core. The audio does not depend on it."`
}
