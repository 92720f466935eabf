import java.time.Duration;
import java.time.Instant;
import java.time.ZoneId;
import java.util.Date;
import java.util.Locale;
import java.util.TimeZone;
import java.util.TreeMap;

/** For each name of a zone and each offset at which `Date.toString()` prints it, one example. */
class PrintZoneNames {
    public static void main(String[] args) {
        Locale.setDefault(Locale.US);
        var first = Instant.parse("2014-01-01T12:00:00Z");
        var end = Instant.parse("2027-01-01T00:00:00Z");
        var examples = new TreeMap<String, String>();
        for (var key : ZoneId.getAvailableZoneIds().stream().sorted().toList()) {
            TimeZone.setDefault(TimeZone.getTimeZone(key));
            for (var time = first; time.isBefore(end); time = time.plus(Duration.ofDays(1))) {
                var text = Date.from(time).toString();
                var minutes = TimeZone.getDefault().getOffset(time.toEpochMilli()) / 60_000;
                var name = text.split(" ")[4];
                examples.putIfAbsent(
                    name + " " + minutes, String.join("\t", key, time.toString(), text));
            }
        }
        examples.values().forEach(System.out::println);
    }
}
