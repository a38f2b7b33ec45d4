package checkpoint

import (
	"errors"
	"fmt"
)

// storages maps the classes of torch's typed storages to element types.
var storages = map[global]DType{
	"torch FloatStorage":    F32,
	"torch HalfStorage":     F16,
	"torch BFloat16Storage": BF16,
	"torch DoubleStorage":   F64,
	"torch LongStorage":     I64,
	"torch IntStorage":      I32,
	"torch ShortStorage":    I16,
	"torch CharStorage":     I8,
	"torch ByteStorage":     U8,
	"torch BoolStorage":     Bool,
}

// builders maps what a pickle may call to what that builds here. This table and the one above are all that a pickle
// can name; the placeholders stand for the numpy scalars beside the weights in suno's files.
var builders = map[global]func(*unpickler, tuple) (any, error){
	"collections OrderedDict":         buildDict,
	"torch._utils _rebuild_tensor_v2": buildTensor,
	"torch._utils _rebuild_tensor":    buildTensor, // the four arguments of torch < 0.4
	"torch._utils _rebuild_parameter": buildParameter,
	"numpy.core.multiarray scalar":    buildPlaceholder,
	"numpy._core.multiarray scalar":   buildPlaceholder,
	"numpy dtype":                     buildPlaceholder,
	"_codecs encode":                  buildPlaceholder,
}

func (u *unpickler) global(op byte) error {
	var name global
	if op == 'c' {
		module, err := u.line()
		if err != nil {
			return err
		}
		attribute, err := u.line()
		if err != nil {
			return err
		}
		name = global(module + " " + attribute)
	} else {
		v, err := u.popN(2)
		if err != nil {
			return err
		}
		module, ok1 := v[0].(string)
		attribute, ok2 := v[1].(string)
		if !ok1 || !ok2 {
			return errors.New("a global is not named by two strings")
		}
		name = global(module + " " + attribute)
	}
	if _, ok := storages[name]; !ok && builders[name] == nil {
		return fmt.Errorf("global %q is not allowed", string(name))
	}
	return u.push(name)
}

// line reads up to the newline, which ends the names of a GLOBAL.
func (u *unpickler) line() (string, error) {
	var out []byte
	for len(out) < 256 {
		b, err := u.byte()
		if err != nil {
			return "", err
		}
		if b == '\n' {
			return string(out), nil
		}
		out = append(out, b)
	}
	return "", errors.New("name of a global is too long")
}

func (u *unpickler) call(callee, args any) (any, error) {
	name, ok := callee.(global)
	arguments, isTuple := args.(tuple)
	if !ok || !isTuple || builders[name] == nil {
		return nil, fmt.Errorf("pickle calls a %T", callee)
	}
	v, err := builders[name](u, arguments)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return v, nil
}

// build handles BUILD, which sets attributes: those of a dict (its _metadata) and of placeholders are dropped.
func (u *unpickler) build() error {
	v, err := u.popN(2)
	if err != nil {
		return err
	}
	switch v[0].(type) {
	case *Dict, opaque:
		return u.push(v[0])
	}
	return fmt.Errorf("pickle sets the state of a %T", v[0])
}

func buildDict(_ *unpickler, args tuple) (any, error) {
	if len(args) != 0 {
		return nil, errors.New("takes no arguments here")
	}
	return &Dict{}, nil
}

func buildPlaceholder(*unpickler, tuple) (any, error) { return opaque{}, nil }

func buildParameter(_ *unpickler, args tuple) (any, error) {
	if len(args) == 0 {
		return nil, errors.New("lacks its tensor")
	}
	t, ok := args[0].(*Tensor)
	if !ok {
		return nil, fmt.Errorf("wraps a %T", args[0])
	}
	return t, nil
}

// buildTensor takes (storage, offset, shape, stride, …).
func buildTensor(_ *unpickler, args tuple) (any, error) {
	if len(args) < 4 {
		return nil, fmt.Errorf("%d arguments", len(args))
	}
	s, ok := args[0].(*storage)
	offset, ok2 := args[1].(int64)
	shape, ok3 := integers(args[2])
	stride, ok4 := integers(args[3])
	if !ok || !ok2 || !ok3 || !ok4 {
		return nil, errors.New("arguments are not storage, offset, shape and stride")
	}
	t := &Tensor{DType: s.dtype, Shape: shape, stride: stride, offset: offset, data: s}
	return t, t.check()
}

func integers(v any) ([]int64, bool) {
	items, ok := v.(tuple)
	if !ok || len(items) > maxDims {
		return nil, false
	}
	out := make([]int64, len(items))
	for i, item := range items {
		if out[i], ok = item.(int64); !ok {
			return nil, false
		}
	}
	return out, true
}

// persistent handles the persistent id ('storage', class, key, location, count[, view]).
func (u *unpickler) persistent() error {
	v, err := u.pop()
	if err != nil {
		return err
	}
	id, ok := v.(tuple)
	if !ok || len(id) < 5 || len(id) > 6 || id[0] != "storage" {
		return errors.New("persistent id is no storage")
	}
	class, ok := id[1].(global)
	dtype, known := storages[class]
	key, ok2 := id[2].(string)
	count, ok3 := id[4].(int64)
	if !ok || !known || !ok2 || !ok3 || count < 0 || count > maxElements {
		return errors.New("persistent id names no storage class, key and count")
	}
	if len(id) == 6 && id[5] != nil {
		return errors.New("views of storages are not supported")
	}
	s, seen := u.ids[key]
	if !seen {
		if s, err = u.locate(storeID{dtype, key, count}); err != nil {
			return err
		}
		u.ids[key] = s
	}
	if s.dtype != dtype || s.count != count {
		return fmt.Errorf("storage %q is described in two ways", key)
	}
	return u.push(s)
}
