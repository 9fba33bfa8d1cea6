// Package snapshot reads and writes the exception stores of device mapper's target
// snapshot. It opens nothing: stores come from an io.ReaderAt, and the caller writes
// what the package computes.
//
// # The store
//
// A snapshot shows an origin with changes. The changes are in a store, which consists
// of chunks of equal size. An exception is a pair of numbers: chunk old of the
// origin has been replaced by chunk new of the store. All numbers are little-endian.
//
// Chunk 0 begins with the header. A chunk has room for E = chunk size / 16 records of
// exceptions. Area a is chunk 1 + (E+1)a and contains E records; the E chunks after
// it contain data. A record with new chunk 0 ends the list. If an area is full, the
// list goes on in the next one. A transient store has neither header nor areas, and its
// chunk 0 contains data.
//
// # Order of writes
//
// After a power cut a record must never lead to a chunk without its data, and a list must
// never continue into old records. [Log.Append] returns what has to be written in which
// order:
//
//   - the caller writes the data of the chunks, zeroes [Batch.Zero], and flushes
//   - the caller writes [Batch.Records] and flushes
//
// [Format] makes a store in an order with the same property.
//
// # Hostile stores
//
// [Load] checks each record. The work is bounded by the number of chunks of the origin,
// and the memory by the index, eight chunks, and a set of chunks of the store. The set takes at most ten
// times the memory of the index, and less than 400 MiB.
//
// # Concurrency
//
// Any number of goroutines may use an [Index] at the same time. It has no lock and
// allocates nothing. A [Log] and an [Allocator] belong to one goroutine.
package snapshot
