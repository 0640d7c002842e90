# A workload that asks the agent for a token, with nothing but perl-base. Then it asks again for each line that it
# reads (MODE=ask) or watches the renewals. Its bag changes on a signal: SIGUSR1 executes $FOREIGN in a process
# beside it, SIGUSR2 loads that library.
BEGIN { my ($bag) = $^X =~ m{^(.*)/bin/}; @INC = ("$bag/lib") }
use strict;
use warnings;
use IO::Socket::UNIX;

$| = 1;
<STDIN>;    # the launch is on record
my $request = sub {
  my $agent = IO::Socket::UNIX->new(Peer => $ENV{AGENT_SOCKET}) or die "agent: $!\n";
  print $agent join "\r\n", @_;
  $agent;
};
my $ask = sub {
  my $body = qq({"audience":"$ENV{AUDIENCE}","ttlSeconds":$ENV{TTL}});
  my $answer = $request->(
    "POST /v1/token HTTP/1.1", "Host: agent", "Connection: close",
    "Content-Type: application/json", "Content-Length: " . length $body, "", $body,
  );
  my @lines = <$answer>;
  s/[\r\n]+//g for @lines;
  print "$lines[0] $lines[-1]\n";
};
$ask->();
if ($ENV{MODE} eq "ask") { $ask->() while <STDIN>; exit }
$SIG{USR1} = sub {
  my $child = fork;
  exec { $ENV{FOREIGN} } "sh", "-c", "echo changed; read line" if defined $child && !$child;
};
$SIG{USR2} = sub { DynaLoader::dl_load_file($ENV{FOREIGN}, 0) or die "not loaded\n"; print "changed\n" };
my $events = $request->("GET /v1/watch?audience=$ENV{AUDIENCE} HTTP/1.1", "Host: agent", "", "");
while (<$events>) { print if $ENV{MODE} eq "tell" }
