// The embedded default model: one GGUF image, aligned as the format wants its tensors, used in place. The include
// path is this directory (#cgo CFLAGS in runtime.go); tools/stamp-native writes the file.
	.section .rodata
	.balign 64
	.globl barkd_default_model
	.type barkd_default_model, %object
barkd_default_model:
	.incbin "default.gguf"
	.globl barkd_default_model_end
	.type barkd_default_model_end, %object
barkd_default_model_end:
	.byte 0
	.size barkd_default_model, barkd_default_model_end - barkd_default_model
	.size barkd_default_model_end, 1

	.section .note.GNU-stack, "", %progbits
