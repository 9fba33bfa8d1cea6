package client

import (
	"encoding/json"
	"reflect"
	"testing"
)

// fill sets each field of a struct to a value other than its zero value.
func fill(t *testing.T, v reflect.Value) {
	t.Helper()
	for i := range v.NumField() {
		switch f := v.Field(i); f.Kind() {
		case reflect.Bool:
			f.SetBool(true)
		case reflect.String:
			f.SetString(v.Type().Field(i).Name + "<&>\"")
		case reflect.Int:
			f.SetInt(int64(i + 1))
		case reflect.Uint32, reflect.Uint64:
			f.SetUint(uint64(i + 1))
		case reflect.Struct:
			fill(t, f)
		case reflect.Slice:
			f.Set(reflect.MakeSlice(f.Type(), 1, 1))
			if e := f.Index(0); e.Kind() == reflect.Struct {
				fill(t, e)
			} else {
				e.SetString("x")
			}
		case reflect.Pointer:
			f.Set(reflect.New(f.Type().Elem())) // to a zero
		default:
			t.Fatalf("%s: no value for a %s", v.Type().Field(i).Name, f.Kind())
		}
	}
}

// members returns the members of a JSON text.
func members(t *testing.T, v any) (m map[string]any) {
	t.Helper()
	text, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// A request has the same members as package json writes, except for those that are zero.
func TestRequestHasAllMembers(t *testing.T) {
	var r AddRequest
	fill(t, reflect.ValueOf(&r).Elem())
	got, want := members(t, r), members(t, plainAddRequest(r))
	if !reflect.DeepEqual(got, want) {
		t.Errorf("members are %v, want %v", got, want)
	}
	var read AddRequest
	text, err := json.Marshal(r)
	if err == nil {
		err = json.Unmarshal(text, &read)
	}
	if err != nil || !reflect.DeepEqual(read, r) {
		t.Errorf("%s is read as %+v, error %v", text, read, err)
	}
	if got := members(t, AddRequest{}); len(got) > 0 {
		t.Errorf("members of the zero value are %v", got)
	}
}

// A new device is read as package json reads it.
func TestNewDeviceHasAllMembers(t *testing.T) {
	var full Device
	fill(t, reflect.ValueOf(&full).Elem())
	full.Tag = 0 // which JSON does not have
	for name, d := range map[string]Device{"full": full, "zero": {}, "name": {File: "/caf\xe9.img"}} {
		var got newDevice
		text, err := json.Marshal(d)
		if err == nil {
			err = json.Unmarshal(text, &got)
		}
		if err != nil || !reflect.DeepEqual(Device(got), d) {
			t.Errorf("%s: %s is read as %+v, error %v", name, text, got, err)
		}
	}
	for _, text := range []string{`{"id": "x"}`, `{"limits": 1}`, `{"limits": {"fua": 1}}`, `{"files": {}}`, `{"file_bytes": 1}`, `[]`} {
		if err := json.Unmarshal([]byte(text), new(newDevice)); err == nil {
			t.Errorf("%s is read", text)
		}
	}
}
