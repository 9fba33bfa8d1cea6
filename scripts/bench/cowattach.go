package main

import "errors"

// cowAttaches measures how long a server of many devices takes to attach an image, without a store
// and with one.
func (b *bench) cowAttaches(back *cowBacking) (err error) {
	store, removeStore, err := back.store()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeStore()) }()
	server, err := startServe(b.bin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.end()) }()
	for _, way := range []path{
		ublkLoop(b.bin, servedName+", read-only, "+back.name, "--read-only"),
		ublkLoop(b.bin, servedName+" and a store, "+back.name, "--cow="+store),
	} {
		a, err := timeAttach(&way, back.image, b.times)
		if err != nil {
			return err
		}
		b.report.Attach = append(b.report.Attach, a)
	}
	return nil
}
