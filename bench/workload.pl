# A workload that asks the agent for a token and then watches its renewals, with nothing but perl-base.
BEGIN { my ($bag) = $^X =~ m{^(.*)/bin/}; @INC = ("$bag/lib") }
use strict;
use warnings;
use IO::Socket::UNIX;

$| = 1;
<STDIN>;    # ends when the launch is on record
my $request = sub {
  my $agent = IO::Socket::UNIX->new(Peer => $ENV{AGENT_SOCKET}) or die "agent: $!\n";
  print $agent join "\r\n", @_;
  $agent;
};
my $body = qq({"audience":"$ENV{AUDIENCE}"});
my $answer = $request->(
  "POST /v1/token HTTP/1.1", "Host: agent", "Connection: close",
  "Content-Type: application/json", "Content-Length: " . length $body, "", $body,
);
my @lines = <$answer>;
s/[\r\n]+//g for @lines;
print "$lines[0] $lines[-1]\n";
close $answer;
my $events = $request->("GET /v1/watch?audience=$ENV{AUDIENCE} HTTP/1.1", "Host: agent", "", "");
while (<$events>) { }
