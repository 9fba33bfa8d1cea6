package snapshot_test

import (
	"fmt"
	"os"

	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
)

// A first write to chunk 7 of an origin: the data goes to a free chunk of the store, then
// the record makes it durable.
func Example() {
	file, err := os.CreateTemp("", "example-*.cow")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.Remove(file.Name()) }()
	layout, _ := snapshot.NewLayout(64 << 10)
	const origin = 1 << 30
	size := layout.StoreSize(100)
	if err := file.Truncate(int64(size)); err != nil {
		panic(err)
	}
	if err := snapshot.Format(file, layout); err != nil {
		panic(err)
	}

	length, _ := snapshot.IndexLength(layout, origin)
	index := snapshot.NewIndex(make([]uint32, length))
	state, err := snapshot.Load(file, layout, size, index)
	if err != nil {
		panic(err)
	}
	log, err := snapshot.NewLog(layout, state, make([]byte, layout.ChunkSize()), 4096)
	if err != nil {
		panic(err)
	}
	free := snapshot.NewAllocator(layout, size, state)

	chunk, err := free.Allocate()
	if err != nil || !index.Claim(7) {
		panic(err)
	}
	_, _ = file.WriteAt(make([]byte, layout.ChunkSize()), layout.Offset(chunk))
	batch := log.Append([]snapshot.Record{{Old: 7, New: chunk}})
	_, _ = file.WriteAt(make([]byte, batch.Zero.Length), batch.Zero.Offset)
	_ = file.Sync()
	_, _ = file.WriteAt(batch.Records.Data, batch.Records.Offset)
	_ = file.Sync()
	log.Commit()
	index.Publish(7, chunk)

	fmt.Println(index.Lookup(6).Replaced(), index.Lookup(7).Replaced(), index.Lookup(7).Chunk())
	fmt.Printf("%+v\n", free.Usage(log.Area()))
	// Output:
	// false true 2
	// {Allocated:384 Total:13056 Metadata:256}
}
