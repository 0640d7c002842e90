# Asks the agent for a token at each line of standard input, and prints what it said: one JSON object a line.
BEGIN { my ($bag) = $^X =~ m{^(.*)/bin/}; @INC = ("$bag/lib") }
use strict;
use warnings;
use IO::Socket::UNIX;

$| = 1;
print qq({"event":"up","pid":$$}\n);
while (defined(my $audience = <STDIN>)) {
  chomp $audience;
  my $body = qq({"audience":"$audience"});
  my $agent = IO::Socket::UNIX->new(Peer => $ENV{AGENT_SOCKET});
  if (!$agent) { print qq({"event":"unreachable"}\n); next }
  print $agent "POST /v1/token HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n",
    "Content-Type: application/json\r\nContent-Length: ", length $body, "\r\n\r\n", $body;
  my $answer = do { local $/; <$agent> };
  my ($status) = $answer =~ m{^HTTP/1.1 (\d+)};
  my ($object) = $answer =~ /(\{.*\})/s;
  $object = '{}' unless defined $object;
  $object =~ s/[\r\n]+//g;
  print '{"event":"answer","status":', $status // 0, qq(,"body":$object}\n);
}
