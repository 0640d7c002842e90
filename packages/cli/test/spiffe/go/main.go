// A service on go-spiffe as its developers would write it. Only SPIFFE_ENDPOINT_SOCKET tells it where it is.
//
//	program watch AUDIENCE   follows X.509 contexts and prints them, and why it gets none
//	program serve            mTLS server
//	program call HOST:PORT   mTLS client
//	program hold             what an X509Source holds, twice a second, and why it gets no more
//	program jwt AUDIENCE     a JWT-SVID by a JWTSource, verified here and by the Workload API
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/spiffetls"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/status"
)

func tell(event string, fields map[string]any) {
	out := map[string]any{"event": event}
	for name, value := range fields {
		out[name] = value
	}
	line, _ := json.Marshal(out)
	fmt.Println(string(line))
}

func must(err error) {
	if err != nil {
		tell("failed", map[string]any{"error": err.Error()})
		os.Exit(1)
	}
}

type watcher struct{}

func (watcher) OnX509ContextUpdate(c *workloadapi.X509Context) {
	svid := c.DefaultSVID()
	_, _, err := svid.Marshal()
	must(err)
	domains := []string{}
	for _, bundle := range c.Bundles.Bundles() {
		domains = append(domains, bundle.TrustDomain().Name())
	}
	tell("svid", map[string]any{
		"id": svid.ID.String(), "serial": svid.Certificates[0].SerialNumber.Text(16), "domains": domains})
}

func (watcher) OnX509ContextWatchError(err error) {
	tell("error", map[string]any{"code": status.Code(err).String(), "error": err.Error()})
}

func (watcher) OnJWTBundlesUpdate(set *jwtbundle.Set) {
	keys := 0
	for _, bundle := range set.Bundles() {
		keys += len(bundle.JWTAuthorities())
	}
	tell("jwt-bundles", map[string]any{"keys": keys})
}

func (watcher) OnJWTBundlesWatchError(err error) {
	tell("error", map[string]any{"code": status.Code(err).String()})
}

func watch(ctx context.Context, audience string) {
	go func() { must(workloadapi.WatchJWTBundles(ctx, watcher{})) }()
	go func() {
		svid, err := workloadapi.FetchX509SVID(ctx)
		must(err)
		tell("one", map[string]any{"id": svid.ID.String()})
		bundles, err := workloadapi.FetchX509Bundles(ctx)
		must(err)
		tell("bundles", map[string]any{"count": bundles.Len()})
		token, err := workloadapi.FetchJWTSVID(ctx, jwtsvid.Params{Audience: audience})
		must(err)
		valid, err := workloadapi.ValidateJWTSVID(ctx, token.Marshal(), audience)
		must(err)
		tell("jwt", map[string]any{"id": token.ID.String(), "valid": valid.ID.String()})
		_, err = workloadapi.FetchJWTSVID(ctx, jwtsvid.Params{Audience: audience, ExtraAudiences: []string{"b"}})
		tell("several", map[string]any{"code": status.Code(err).String()})
		_, err = workloadapi.ValidateJWTSVID(ctx, token.Marshal(), "other")
		tell("other", map[string]any{"code": status.Code(err).String()})
	}()
	must(workloadapi.WatchX509Context(ctx, watcher{}))
}

func source(ctx context.Context) *workloadapi.X509Source {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	source, err := workloadapi.NewX509Source(ctx)
	must(err)
	return source
}

func hold(ctx context.Context) {
	go func() { must(workloadapi.WatchX509Context(ctx, watcher{})) }()
	x509 := source(ctx)
	defer x509.Close()
	for ; ; time.Sleep(500 * time.Millisecond) {
		svid, err := x509.GetX509SVID()
		must(err)
		leaf := svid.Certificates[0]
		tell("held", map[string]any{"serial": leaf.SerialNumber.Text(16), "expired": leaf.NotAfter.Before(time.Now())})
	}
}

func serve(ctx context.Context) {
	x509 := source(ctx)
	defer x509.Close()
	mode := spiffetls.MTLSServerWithSource(tlsconfig.AuthorizeAny(), x509)
	listener, err := spiffetls.ListenWithMode(ctx, "tcp", "127.0.0.1:0", mode)
	must(err)
	tell("serving", map[string]any{"port": listener.Addr().(*net.TCPAddr).Port})
	for {
		conn, err := listener.Accept()
		must(err)
		// The first write makes the handshake; before it nobody is known.
		if _, err := conn.Write([]byte("hello")); err != nil {
			tell("refused", map[string]any{"error": err.Error()})
		} else if id, err := spiffetls.PeerIDFromConn(conn); err == nil {
			tell("caller", map[string]any{"id": id.String()})
		}
		conn.Close()
	}
}

func call(ctx context.Context, address string) {
	x509 := source(ctx)
	defer x509.Close()
	mode := spiffetls.MTLSClientWithSource(tlsconfig.AuthorizeAny(), x509)
	conn, err := spiffetls.DialWithMode(ctx, "tcp", address, mode)
	must(err)
	text, err := io.ReadAll(conn)
	must(err)
	id, err := spiffetls.PeerIDFromConn(conn)
	must(err)
	tell("server", map[string]any{"id": id.String(), "text": string(text)})
}

func jwt(ctx context.Context, audience string) {
	source, err := workloadapi.NewJWTSource(ctx)
	must(err)
	defer source.Close()
	svid, err := source.FetchJWTSVID(ctx, jwtsvid.Params{Audience: audience})
	must(err)
	checked, err := jwtsvid.ParseAndValidate(svid.Marshal(), source, []string{audience})
	must(err)
	tell("jwt", map[string]any{"id": checked.ID.String()})
}

func main() {
	ctx := context.Background()
	argument := ""
	if len(os.Args) > 2 {
		argument = os.Args[2]
	}
	switch os.Args[1] {
	case "watch":
		watch(ctx, argument)
	case "hold":
		hold(ctx)
	case "serve":
		serve(ctx)
	case "call":
		call(ctx, argument)
	case "jwt":
		jwt(ctx, argument)
	}
}
