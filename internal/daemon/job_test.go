package daemon

import (
	"reflect"
	"testing"

	"github.com/ublk-loop/ublk-loop/loop"
)

// The server gets every field of the configuration, except the key, which it gets as a
// descriptor, and the options that only a server of many devices implements.
func TestTaskForgetsNoField(t *testing.T) {
	var want loop.Config
	fill(t, reflect.ValueOf(&want).Elem())
	want.Key, want.Autoclear = nil, false
	id := uint32(3)
	job := &Job{Name: "/srv/a b", Config: want, Recover: &id, Foreground: true, JSON: true, Warnings: []string{"careful"}}
	var got singleTask
	passed := pass(t, singleTaskOf(job), nil, &got)
	passed.close()
	if cfg := got.config(); !reflect.DeepEqual(cfg, want) {
		t.Errorf("%+v\nbecomes\n%+v", want, cfg)
	}
	if got.Name != job.Name || *got.Recover != id || !got.Foreground || !got.JSON || !reflect.DeepEqual(got.Warnings, job.Warnings) {
		t.Errorf("the task is %+v", got)
	}
}

// fill sets each field of a struct to a value other than its zero value.
func fill(t *testing.T, v reflect.Value) {
	t.Helper()
	for i := range v.NumField() {
		switch f := v.Field(i); f.Kind() {
		case reflect.Bool:
			f.SetBool(true)
		case reflect.String:
			f.SetString(v.Type().Field(i).Name)
		case reflect.Int:
			f.SetInt(int64(i + 1))
		case reflect.Uint32, reflect.Uint64:
			f.SetUint(uint64(i + 1))
		case reflect.Struct:
			fill(t, f)
		case reflect.Pointer:
			f.Set(reflect.New(f.Type().Elem()))
		default:
			t.Fatalf("%s: no value for a %s", v.Type().Field(i).Name, f.Kind())
		}
	}
}
