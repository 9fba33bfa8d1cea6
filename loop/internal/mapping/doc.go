// Package mapping says where the bytes of a request go on a device that is a
// stack of device-mapper tables (package transfer/table).
//
// A [Plan] is built once and does not change, so that any number of threads can
// use it. A [Walk] yields the pieces of one read or write, a [RangeWalk] those of
// a discard, and a [LayerWalk] the parts that a layer such as crypt transforms.
// Walks are values: they allocate nothing, take no lock, and go down at most
// table.MaxDepth steps for each piece. docs/design.md has the whole.
//
// The package opens nothing and knows devices only by their number in
// table.Stack.Devices. Offsets and lengths are in bytes.
package mapping
