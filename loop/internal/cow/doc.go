// Package cow serves the store of a snapshot: it loads the index, gives out chunks to first
// writes, and makes their records durable.
//
// The threads of the queues carry out first writes: they claim a chunk of the origin in the
// index, take a chunk of the store, write its data, and add a record. [Store.Allocate],
// [Store.Add] and [Store.Wait] take a lock for a few instructions. Requests that are not a
// first write only look up the index, without a lock.
//
// A goroutine for each store saves records in groups. Records reach the medium only after the
// data of their chunks: the goroutine flushes the store, writes the records, and flushes them.
// It answers those who wait for that ([Store.Commit]): flushes, FUA writes, and in the eager
// mode each first write.
//
// docs/reliability.md says what a crash leaves.
package cow
