package client

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
)

// Package json makes tables for each type when it is first used. For the types of a request for a
// device, and of the answer, that takes a short-lived program longer than all else that it does. The
// functions of this file make no tables, and need more time for each further object.

// membersOf returns the members of a struct that are not zero.
func membersOf(v reflect.Value) map[string]any {
	members := map[string]any{}
	for i := range v.NumField() {
		switch f := v.Field(i); {
		case f.IsZero():
		case f.Kind() == reflect.Struct:
			members[memberName(v, i)] = membersOf(f)
		default:
			members[memberName(v, i)] = f.Interface()
		}
	}
	return members
}

// setMembers sets the members of a struct that a text has, and returns the text of all members. Their
// names are written as in the struct.
func setMembers(v reflect.Value, text []byte) (members map[string]json.RawMessage, err error) {
	if err := json.Unmarshal(text, &members); err != nil {
		return nil, err
	}
	for i := range v.NumField() {
		name := memberName(v, i)
		text := members[name]
		switch f := v.Field(i); {
		case text == nil:
		case f.Kind() == reflect.Struct:
			_, err = setMembers(f, text)
		default:
			err = json.Unmarshal(text, f.Addr().Interface())
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return members, nil
}

func memberName(v reflect.Value, i int) string {
	name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
	return name
}
