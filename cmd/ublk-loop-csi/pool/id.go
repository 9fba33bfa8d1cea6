package pool

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// Kind is a kind of object in the pool.
type Kind string

// These are the kinds of objects.
const (
	Volumes   Kind = "volumes"
	Snapshots Kind = "snapshots"
	Layers    Kind = "layers"
)

// These are the lengths of the two parts of an id, in hexadecimal digits.
const (
	nodeDigits = 12
	nameDigits = 32
)

// ID returns the id of an object. A name is any text that the caller chose, such as "../x".
// Only its hash becomes a part of file names. The hash of the node tells ids of this node
// from those of others.
func ID(kind Kind, node, name string) string {
	return prefix(kind) + digits(node, nodeDigits) + "-" + digits(name, nameDigits)
}

// NewLayerID returns an id that no other layer has.
func NewLayerID(node string) string { return ID(Layers, node, rand.Text()) }

func prefix(kind Kind) string {
	switch kind {
	case Snapshots:
		return "snap-"
	case Layers:
		return "layer-"
	}
	return "vol-"
}

func digits(text string, n int) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])[:n]
}

// IsID reports whether a text has the form of an id.
func IsID(kind Kind, id string) bool {
	rest, ok := strings.CutPrefix(id, prefix(kind))
	node, name, dash := strings.Cut(rest, "-")
	return ok && dash && isHash(node, nodeDigits) && isHash(name, nameDigits)
}

func isHash(text string, n int) bool {
	return len(text) == n && strings.Trim(text, "0123456789abcdef") == ""
}

// IsOf reports whether an id belongs to a node.
func IsOf(kind Kind, id, node string) bool {
	return IsID(kind, id) && strings.HasPrefix(id, prefix(kind)+digits(node, nodeDigits))
}
