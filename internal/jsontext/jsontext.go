// Package jsontext explains errors of texts in JSON to those who wrote them. Package encoding/json names Go types,
// which they do not know.
package jsontext

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
)

// Explain returns an error of package encoding/json in terms of the text. It does not change other errors.
func Explain(err error) error {
	var wrong *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &wrong):
		return &explained{mismatch(wrong), err}
	case errors.Is(err, io.ErrUnexpectedEOF):
		return &explained{"the text ends too early", err}
	case errors.Is(err, io.EOF):
		return &explained{"the text is empty", err}
	case strings.HasPrefix(err.Error(), "json: unknown field "):
		return &explained{strings.TrimPrefix(err.Error(), "json: "), err}
	}
	return err
}

// explained is an error with another text.
type explained struct {
	text string
	err  error
}

// Error implements error.
func (e *explained) Error() string { return e.text }

// Unwrap returns the original error.
func (e *explained) Unwrap() error { return e.err }

// mismatch says which member has the wrong type, and which type it should have.
func mismatch(e *json.UnmarshalTypeError) string {
	text := fmt.Sprintf("%s where %s is expected", value(e.Value), wanted(e.Type))
	if path := memberPath(e.Field); path != "" {
		text = path + ": " + text
	}
	return text
}

// memberPath returns the path of a member without the Go structs that are embedded in others. Their names begin with
// "plain" (client/name.go).
func memberPath(field string) string {
	names := slices.DeleteFunc(strings.Split(field, "."), func(name string) bool { return strings.HasPrefix(name, "plain") })
	return strings.Join(names, ".")
}

// value returns the value of an UnmarshalTypeError with an article.
func value(text string) string {
	if strings.HasPrefix(text, "number ") {
		return text
	}
	return withArticle(strings.Replace(text, "bool", "boolean", 1))
}

// wanted returns what the text of a Go type is.
func wanted(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return withArticle("boolean")
	case reflect.String:
		return withArticle("string")
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return "a whole number"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return fmt.Sprintf("a whole number from 0 to %d", ^uint64(0)>>(64-t.Bits()))
	case reflect.Float32, reflect.Float64:
		return withArticle("number")
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return "a string in base64"
		}
		return withArticle("array")
	case reflect.Pointer:
		return wanted(t.Elem())
	}
	return withArticle("object")
}

func withArticle(noun string) string {
	if strings.HasPrefix(noun, "a") || strings.HasPrefix(noun, "o") {
		return "an " + noun
	}
	return "a " + noun
}
