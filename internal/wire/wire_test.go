package wire

import (
	"reflect"
	"slices"
	"testing"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/loop"
)

// fill sets each field of a struct to a value other than its zero value.
func fill(t *testing.T, v reflect.Value) {
	t.Helper()
	for i := range v.NumField() {
		switch f := v.Field(i); f.Kind() {
		case reflect.Bool:
			f.SetBool(true)
		case reflect.String:
			f.SetString(v.Type().Field(i).Name)
		case reflect.Int, reflect.Int64:
			f.SetInt(int64(i + 1))
		case reflect.Uint32, reflect.Uint64:
			f.SetUint(uint64(i + 1))
		case reflect.Struct:
			fill(t, f)
		case reflect.Slice:
			f.Set(reflect.MakeSlice(f.Type(), 1, 1))
			fill(t, f.Index(0))
		case reflect.Pointer:
			f.Set(reflect.New(f.Type().Elem()))
		default:
			t.Fatalf("%s: no value for a %s", v.Type().Field(i).Name, f.Kind())
		}
	}
}

// zeroFields returns the names of the fields that have their zero value.
func zeroFields(v reflect.Value, path string) []string {
	var zero []string
	for i := range v.NumField() {
		name := path + v.Type().Field(i).Name
		switch f := v.Field(i); {
		case f.Kind() == reflect.Struct:
			zero = append(zero, zeroFields(f, name+".")...)
		case f.IsZero():
			zero = append(zero, name)
		}
	}
	return zero
}

// A configuration survives the conversion to a request and back, except for the fields
// that a request lacks.
func TestConfigForgetsNoField(t *testing.T) {
	var want loop.Config
	fill(t, reflect.ValueOf(&want).Elem())
	want.Key, want.Autoclear, want.Table = nil, false, ""
	asked := RequestConfig(&want)
	if zero := zeroFields(reflect.ValueOf(asked), ""); len(zero) > 0 {
		t.Errorf("a request has no %q", zero)
	}
	if got := Config(&asked); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nbecomes\n%+v", want, got)
	}
}

// The description of a device has all fields.
func TestDeviceForgetsNoField(t *testing.T) {
	var status loop.Status
	fill(t, reflect.ValueOf(&status).Elem())
	device := Device(&status)
	// Only the command list has the use of stores, which it asks the server for.
	if zero := zeroFields(reflect.ValueOf(device), ""); !slices.Equal(zero, []string{"Stores"}) {
		t.Errorf("programs do not see %q", zero)
	}
	a, b := reflect.ValueOf(status), reflect.ValueOf(device)
	for i := range a.NumField() {
		name := a.Type().Field(i).Name
		seen := b.FieldByName(name)
		if list, isList := seen.Interface().([]client.DeviceFile); isList {
			seen = reflect.ValueOf([]loop.StatusFile{loop.StatusFile(list[0])})
		}
		if !seen.IsValid() || !reflect.DeepEqual(a.Field(i).Interface(), seen.Convert(a.Field(i).Type()).Interface()) {
			t.Errorf("%s: %+v is seen as %+v", name, a.Field(i), seen)
		}
	}
}
