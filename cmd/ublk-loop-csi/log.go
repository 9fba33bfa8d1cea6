package main

import (
	"context"
	"os"
	"path"
	"time"

	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// logger writes JSON lines, like ublk-loop serve.
type logger struct{ core zapcore.Core }

func newLogger(file *os.File) *logger {
	return &logger{zapcore.NewCore(zapcore.NewJSONEncoder(zapcore.EncoderConfig{
		TimeKey: "ts", LevelKey: "level", MessageKey: "msg", LineEnding: zapcore.DefaultLineEnding,
		EncodeTime: zapcore.RFC3339NanoTimeEncoder, EncodeLevel: zapcore.LowercaseLevelEncoder,
	}), zapcore.Lock(file), zapcore.InfoLevel)}
}

func (l *logger) info(message string) { l.write(zapcore.InfoLevel, message, nil) }

func (l *logger) failed(err error) { l.write(zapcore.ErrorLevel, err.Error(), nil) }

// write drops its own error, because there is no other place to report it.
func (l *logger) write(level zapcore.Level, message string, fields []zapcore.Field) {
	_ = l.core.Write(zapcore.Entry{Level: level, Time: time.Now(), Message: message}, fields)
}

// volumeRequest is a request about a volume.
type volumeRequest interface{ GetVolumeId() string }

// calls answers a call, and logs its error with the id of the volume. It logs nothing else
// of the request, which can have secrets. It does not log the errors that Kubernetes
// expects.
func (l *logger) calls(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	reply, err := handler(ctx, req)
	switch status.Code(err) {
	case codes.OK, codes.NotFound, codes.AlreadyExists, codes.Aborted, codes.Canceled:
		return reply, err
	}
	fields := []zapcore.Field{{Key: "error", Type: zapcore.StringType, String: err.Error()}}
	if r, ok := req.(volumeRequest); ok {
		fields = append(fields, zapcore.Field{Key: "volume", Type: zapcore.StringType, String: r.GetVolumeId()})
	}
	l.write(zapcore.ErrorLevel, path.Base(info.FullMethod), fields)
	return reply, err
}
